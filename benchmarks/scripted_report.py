"""The Markdown section and the figures of `benchmarks.scripted_damage`, from its result files."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def write_report(folder: Path, methods: Sequence[str]) -> None:
    """`scripted_damage.md` and a figure for each format, of all that is in a folder."""
    sections = ["## Scripted damage on real tokenizers\n"]
    for path in sorted(folder.glob("scripted_damage_*.json")):
        name = path.stem.removeprefix("scripted_damage_")
        kept = json.loads(path.read_text("utf-8"))
        by_method = {m: kept["methods"][m] for m in methods if m in kept["methods"]}
        sections.append(_section(name, kept["tokenizer"], by_method))
        _figure(path.with_suffix(".png"), name, {m: d["rows"] for m, d in by_method.items()})
    (folder / "scripted_damage.md").write_text("\n".join(sections), "utf-8")


def shares(rows: Rows, key: str) -> list[float]:
    """The share of cases by seed, in percent."""
    seeds = sorted({row["seed"] for row in rows})
    found = []
    for seed in seeds:
        own = [row for row in rows if row["seed"] == seed]
        cases = sum(row["cases"] for row in own)
        found.append(100 * sum(row[key] for row in own) / cases)
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper one."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _cell(rows: Rows, key: str) -> str:
    if not rows:
        return ""
    low, middle, high = quartiles(shares(rows, key))
    return f"{middle:.0f}" if low == high else f"{middle:.0f} ({low:.0f}-{high:.0f})"


def _section(name: str, tokenizer: str, by_method: dict[str, Any]) -> str:
    every = [row for data in by_method.values() for row in data["rows"]]
    strengths = sorted({row["strength"] for row in every})
    kinds = list(dict.fromkeys(row["damage"] for row in every))
    seeds = len({row["seed"] for row in every})
    cases = max(row["cases"] for row in every)
    lines = [
        f"### {name}, {tokenizer}'s tokenizer\n",
        f"Percent of {cases} cases, medians of {seeds} seeds (quartiles); over all damages: "
        "exact / wrong / none.\n",
        "| method | " + " | ".join(f"{strength:g} nats" for strength in strengths) + " | s/turn |",
        "|---" * (len(strengths) + 2) + "|",
    ]
    for method, data in by_method.items():
        cells = []
        for strength in strengths:
            rows = [row for row in data["rows"] if row["strength"] == strength]
            cells.append(" / ".join(_cell(rows, key) for key in ("exact", "wrong", "none")))
        turns = sum(row["cases"] for row in data["rows"])
        spent = sum(row["seconds"] for row in data["rows"]) / turns
        lines.append(f"| {method} | {' | '.join(cells)} | {spent:.2f} |")
    harsh = strengths[-1]
    lines += [
        f"\nExact by damage, at {harsh:g} nats:\n",
        "| method | " + " | ".join(kind.replace("_", " ") for kind in kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for method, data in by_method.items():
        cells = [
            _cell(
                [r for r in data["rows"] if (r["damage"], r["strength"]) == (kind, harsh)], "exact"
            )
            for kind in kinds
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, *_harm(by_method), ""])


def _harm(by_method: dict[str, Any]) -> list[str]:
    lines = [
        "\nHarm: healthy turns whose tokens differ, then prose about tool calls (texts changed, "
        "tokens changed, texts that became calls), spelled and with the control tokens "
        "themselves:\n",
        "| method | healthy turns | prose, spelled | prose, control tokens |",
        "|---|---|---|---|",
    ]
    errors = []
    for method, data in by_method.items():
        seen = {row["seed"]: row for row in data["rows"] if not row["strength"]}
        turns = sum(row["cases"] for row in seen.values())
        cells = [f"{sum(row['changed'] for row in seen.values())} of {turns}"]
        for way in ("spelled", "tokens"):
            harm = (data["harm"] or {}).get(way)
            cells.append(
                f"{harm['changed']} of {harm['texts']}, {harm['tokens']}, {harm['calls']}"
                + (f", {harm['errors']} errors" if harm["errors"] else "")
                if harm
                else ""
            )
        lines.append(f"| {method} | {' | '.join(cells)} |")
        failed = sum(row["errors"] for row in data["rows"])
        first = next((row["error"] for row in data["rows"] if "error" in row), None)
        if first:
            text = " ".join(first.split()).replace("|", "\\|")
            turns = sum(row["cases"] for row in data["rows"])
            errors.append(f"- {method} raised in {failed} of {turns} turns, first: `{text}`")
    return [*lines, "", *errors]


def _figure(path: Path, name: str, by_method: dict[str, Rows]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row["damage"] for rows in by_method.values() for row in rows))
    across = min(3, len(kinds))
    down = -(-len(kinds) // across)
    figure, panels = pyplot.subplots(
        down, across, figsize=(3.6 * across, 2.6 * down), sharex=True, sharey=True, squeeze=False
    )
    for panel in panels.flat[len(kinds) :]:
        panel.axis("off")
    for kind, panel in zip(kinds, panels.flat, strict=False):
        panel.set_title(kind.replace("_", " "), fontsize=9)
        for place, (method, rows) in enumerate(by_method.items()):
            own = [row for row in rows if row["damage"] == kind]
            strengths = sorted({row["strength"] for row in own})
            if not strengths:
                continue
            bands = [
                quartiles(shares([row for row in own if row["strength"] == s], "exact"))
                for s in strengths
            ]
            low, middle, high = zip(*bands, strict=True)
            ours = method in ("enforce", "recover", "recover_reference", "repair")
            style = {"color": f"C{place % 10}", "linestyle": "-" if ours else "--"}
            panel.plot(strengths, middle, label=method, linewidth=1.4, **style)
            panel.fill_between(strengths, low, high, color=style["color"], alpha=0.12)
    for panel in panels[-1]:
        panel.set_xlabel("strength, nats", fontsize=8)
    for panel in panels[:, 0]:
        panel.set_ylabel("exact, %", fontsize=8)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=5, fontsize=8, frameon=False)
    figure.suptitle(f"{name}: expected calls (or plain replies) that come out", fontsize=10)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
