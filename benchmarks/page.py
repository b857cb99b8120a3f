"""`RESULTS.md`, made of the result files that are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .conformance.report import conformance_section
from .cost_report import cost_section
from .recovered_report import recovered_section
from .saving import save
from .scripted_report import write_report
from .tables import spread, table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE / "RESULTS.md"
HEADING = """\
# Results

Written by `python -m benchmarks`; what is claimed and what is not: [README.md](README.md). Where \
something was repeated, it is medians, with quartiles in brackets.
"""
Rows = list[dict[str, Any]]


def write_page(titles: Mapping[str, str]) -> None:
    """The page.

    Args:
        titles: of each benchmark's section, in order.
    """
    sections = [_section(name, title) for name, title in titles.items()]
    save(PAGE, "\n".join([HEADING, *sections]))


def run_file(name: str, running: bool = False) -> Path:
    """Where the last whole run of a benchmark is, or the one that goes on or did not end well."""
    return RESULTS / f"{name}.{'running' if running else 'run'}.json"


def _section(name: str, title: str) -> str:
    """The last whole run; why a later one did not end well, and its rows if there is no other."""
    whole, cut = (
        json.loads(path.read_text("utf-8")) if path.is_file() else None
        for path in (run_file(name), run_file(name, running=True))
    )
    parts = [f"## {title}"]
    if cut:
        how = f"failed: {cut['error']}" if cut["error"] else "was cut off"
        parts.append(f"The last run {how} (`{cut['command']}`, {cut['date']}, {cut['seconds']} s).")
    if whole:
        versions = ", ".join(f"{name} {number}" for name, number in whole["versions"].items())
        parts.append(
            f"`{whole['command']}`, {whole['date']}, {whole['seconds']} s, {whole['machine']}; "
            f"{versions}."
        )
    elif not cut:
        parts.append(f"Not run as a whole: `python -m benchmarks --part {name}`.")
    rows = (whole or cut or {"rows": []})["rows"]
    parts.append(SECTIONS[name](rows) if rows or name in OWN_FILES else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def _scripted(_: Rows) -> str:
    written = write_report(RESULTS).partition("\n")[2]  # without its heading
    return written.replace("](scripted_damage", "](results/scripted_damage").strip()


def _repaired(rows: Rows) -> str:
    [found] = rows
    readers = [
        {"reader": name, **row, **{key: _percent(row[key]) for key in ("precision", "recall")}}
        for name, row in found["readers"].items()
    ]
    kinds = dict.fromkeys(kind for row in found["checkpoints"].values() for kind in row)
    checkpoints = [
        {"checkpoint": name, **{kind: row.get(kind, 0) for kind in kinds}}
        for name, row in found["checkpoints"].items()
    ]
    absent = "".join(
        f"\n\n{name} did not take part: {why}." for name, why in found["absent"].items()
    )
    return f"{table(readers)}{absent}\n\n{table(checkpoints)}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _forced(rows: Rows) -> str:
    return table(
        [
            {
                **{name: value for name, value in row.items() if name != "time_ratio"},
                "time, guarded / unguarded": spread(row["time_ratio"], ".2f"),
            }
            for row in rows
        ]
    )


def _growth(rows: Rows) -> str:
    parts = dict.fromkeys(row["part"] for row in rows)
    own = {part: [row for row in rows if row["part"] == part] for part in parts}
    for part, each in own.items():
        own[part] = [{key: value for key, value in row.items() if key != "part"} for row in each]
    return "\n\n".join(f"### {GROWTH[part]}\n\n{table(each)}" for part, each in own.items())


GROWTH = {
    "compile": "Compiling: ms of a core, and how many times as long as bare llguidance's for JSON",
    "argument": "Arguments of 2,000 to 32,000 tokens: microseconds of a core a token",
}
OWN_FILES = ("scripted_damage",)
"""Those that keep their results themselves."""
SECTIONS: dict[str, Callable[[Rows], str]] = {
    "recovered_validity": lambda rows: recovered_section(rows, RESULTS),
    "scripted_damage": _scripted,
    "repair": _repaired,
    "cost": lambda rows: cost_section(rows, RESULTS),
    "growth": _growth,
    "forced_tokens": _forced,
    "conformance": conformance_section,
    "harm": table,
}
