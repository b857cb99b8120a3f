"""The tables of a run, from its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..tables import table
from .published import FAILS, PUBLISHED_ON, TOTALS, best
from .reasons import CLASSES, FAULT, PARTS

Row = Mapping[str, Any]
SHOWN = ("pass", "soft", "fail")


def conformance_section(rows: Sequence[Row]) -> str:
    """Families beside the published figures, files by part, and every fail with its reason."""
    counts = [row for row in rows if row["kind"] == "count"]
    parts = [part for part in PARTS if any(row["part"] == part for row in counts)]
    sections = [f"{row['part']} is left out: {row['why']}." for row in _of(rows, "left_out")]
    if "stream" in parts:
        sections.append(
            f"Fixtures that fail, read and streamed as text; other engines as published on "
            f"{PUBLISHED_ON} (they do not support all fixtures).\n\n"
            + table(_families([row for row in counts if row["part"] == "stream"]))
        )
    sections.append(
        "Pass / soft pass (white space) / fail, by file and part. `stream`: read, and seven cuts "
        "of text; `ids`: the suite's eight cuts of ids; `repair_errors`: repair where the suite "
        "expects an error (a fail is a call given back); `mask`: of the turns that are valid.\n\n"
        + table([*_files(counts, parts), _total("all", counts, parts)])
    )
    fails = _of(rows, "fail")
    reasons = [
        {"part": part, **{c: classes[c] for c in (FAULT, *CLASSES)}}
        for part in parts
        if (classes := Counter(row["class"] for row in fails if row["part"] == part))
    ]
    if reasons:
        sections.append("Fails by reason (docs/conformance.md).\n\n" + table(reasons))
    for kind, title in (
        ("changed", "Healthy turns that repair changes"),
        ("invented", "Calls of repair that are not the expected ones"),
        ("stale", "Listed in docs/conformance.md, and passes"),
    ):
        found = _of(rows, kind)
        if found or "repair" in parts or kind == "stale":
            shown = ", ".join(f"{row['fixture']} ({row['part']})" for row in found) or "none"
            sections.append(f"{title}: {shown}.")
    if faults := [row for row in fails if row["class"] == FAULT]:
        sections.append("Faults.\n\n" + table(_faults(faults)))
    return "\n\n".join(sections)


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _families(counts: Sequence[Row]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for family in dict.fromkeys(row["file"].partition("/")[0] for row in counts):
        own = [row for row in counts if row["file"].startswith(f"{family}/")]
        fails = sum(row["fail"] for row in own)
        rows.append(
            {
                "family": family,
                "fixtures": sum(sum(row[name] for name in SHOWN) for row in own),
                "toolguard": fails,
                **{engine: FAILS[family].get(engine, "") for engine in TOTALS},
                "no worse": "yes" if fails <= best(family) else "no",
            }
        )
    whole = {engine: f"{fails} of {known}" for engine, (fails, known) in TOTALS.items()}
    sums = {name: sum(row[name] for row in rows) for name in ("fixtures", "toolguard")}
    return [*rows, {"family": "all", **sums, **whole}]


def _files(counts: Sequence[Row], parts: Sequence[str]) -> list[dict[str, Any]]:
    files = dict.fromkeys(row["file"] for row in counts)
    return [_total(file, [r for r in counts if r["file"] == file], parts) for file in files]


def _total(name: str, counts: Sequence[Row], parts: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"file": name}
    for part in parts:
        own = [count for count in counts if count["part"] == part]
        sums = [sum(count[shown] for count in own) for shown in SHOWN]
        row[part] = "/".join(map(str, sums)) if any(sums) else ""
    return row


def _faults(faults: Sequence[Row]) -> list[dict[str, Any]]:
    """A row for each fixture: its parts, and what is wrong in the first of them."""
    rows: dict[str, dict[str, Any]] = {}
    for fault in faults:
        row = rows.setdefault(fault["fixture"], {"fixture": fault["fixture"], "parts": ""})
        row["parts"] += f" {fault['part']}"
        row.setdefault("what", fault["what"][:200])
    return [{**row, "parts": row["parts"].strip()} for row in rows.values()]
