"""The Markdown section and the figures of `benchmarks.scripted_damage`, from its result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .saving import save
from .tables import quartiles, spread

Rows = list[dict[str, Any]]
Methods = dict[str, dict[str, Any]]
"""By method what `benchmarks.scripted_damage` found: `rows`, `harm`, and why it is `absent`."""


def write_report(folder: Path) -> str:
    """`scripted_damage.md` and a figure for each format, of all that is in a folder."""
    sections = ["## Scripted damage on real tokenizers\n"]
    for path in sorted(folder.glob("scripted_damage_*.json")):
        name = path.stem.removeprefix("scripted_damage_")
        kept = json.loads(path.read_text("utf-8"))
        sections.append(_section(name, kept["tokenizer"], kept["methods"]))
        _figure(path.with_suffix(".png"), name, kept["methods"])
    written = "\n".join(sections)
    save(folder / "scripted_damage.md", written)
    return written


def shares(rows: Rows, key: str) -> list[float]:
    """The share of cases by seed, in percent."""
    seeds = sorted({row["seed"] for row in rows})
    found = []
    for seed in seeds:
        own = [row for row in rows if row["seed"] == seed]
        cases = sum(row["cases"] for row in own)
        found.append(100 * sum(row[key] for row in own) / cases)
    return found


def _cell(rows: Rows, key: str) -> str:
    return spread(shares(rows, key)) if rows else ""


def _section(name: str, tokenizer: str, methods: Methods) -> str:
    every = [row for found in methods.values() for row in found["rows"]]
    strengths = sorted({row["strength"] for row in every})
    kinds = list(dict.fromkeys(row["damage"] for row in every))
    lines = [
        f"### {name}, {tokenizer}'s tokenizer\n",
        f"![Curves](scripted_damage_{name}.png)\n",
        "Percent of the cases of a seed, medians of the seeds (quartiles); over all damages: exact "
        "/ wrong / none. What is done afterwards to unguarded turns has its own seconds only.\n",
        "| method | cases x seeds | "
        + " | ".join(f"{strength:g} nats" for strength in strengths)
        + " | s/turn |",
        "|---" * (len(strengths) + 3) + "|",
    ]
    for method, found in methods.items():
        rows = found["rows"]
        if not rows:
            lines.append(f"| {method} |  | {found['absent']} |" + " |" * len(strengths))
            continue
        cells = []
        for strength in strengths:
            own = [row for row in rows if row["strength"] == strength]
            cells.append(" / ".join(_cell(own, key) for key in ("exact", "wrong", "none")))
        spent = sum(row["seconds"] for row in rows) / sum(row["cases"] for row in rows)
        sample = f"{max(row['cases'] for row in rows)} x {len({row['seed'] for row in rows})}"
        lines.append(f"| {method} | {sample} | {' | '.join(cells)} | {spent:.2f} |")
    if not every:
        return "\n".join([*lines, ""])
    harsh = strengths[-1]
    lines += [
        f"\nExact by damage, at {harsh:g} nats:\n",
        "| method | " + " | ".join(kind.replace("_", " ") for kind in kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for method, found in methods.items():
        cells = [
            _cell(
                [r for r in found["rows"] if (r["damage"], r["strength"]) == (kind, harsh)],
                "exact",
            )
            for kind in kinds
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, *_harm(methods), *_errors(methods), ""])


def _harm(methods: Methods) -> list[str]:
    lines = [
        "\nHarm: healthy turns whose tokens differ, then prose about tool calls (texts changed, "
        "tokens changed, texts that became calls), spelled and with the control tokens "
        "themselves:\n",
        "| method | healthy turns | prose, spelled | prose, control tokens |",
        "|---|---|---|---|",
    ]
    for method, found in methods.items():
        seen = {row["seed"]: row for row in found["rows"] if not row["strength"]}
        turns = sum(row["cases"] for row in seen.values())
        cells = [f"{sum(row['changed'] for row in seen.values())} of {turns}" if seen else ""]
        for way in ("spelled", "tokens"):
            harm = (found["harm"] or {}).get(way)
            cells.append(
                f"{harm['changed']} of {harm['texts']}, {harm['tokens']}, {harm['calls']}"
                + (f", {harm['errors']} errors" if harm["errors"] else "")
                if harm
                else found["absent"] or "not run"
            )
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _errors(methods: Methods) -> list[str]:
    """What methods raised: how often, and the first."""
    lines = []
    for method, found in methods.items():
        for what, counts in (
            ("turns", found["rows"]),
            ("texts of prose", list((found["harm"] or {}).values())),
        ):
            first = next((count["error"] for count in counts if "error" in count), None)
            if first:
                failed = sum(count["errors"] for count in counts)
                every = sum(count["cases" if what == "turns" else "texts"] for count in counts)
                text = " ".join(first.split()).replace("|", "\\|")
                lines.append(f"- {method} raised in {failed} of {every} {what}, first: `{text}`")
    return ["", *lines] if lines else []


def _figure(path: Path, name: str, methods: Methods) -> None:
    by_method = {method: found["rows"] for method, found in methods.items() if found["rows"]}
    if not by_method:
        return
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
            # the cycle has ten colours, and there are eleven methods
            colour = f"C{place - 1}" if place else "black"
            style = {"color": colour, "linestyle": "-" if ours else "--"}
            panel.plot(strengths, middle, label=method, linewidth=1.4, **style)
            panel.fill_between(strengths, low, high, color=colour, alpha=0.12)
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
