"""The table and the figure of `benchmarks.recovered_validity`, from its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolguard.cli.chart import heat_map

from .tables import quartiles, spread, table

Row = dict[str, Any]
RATES = ("schema_valid", "exact_match", "no_call_kept", "wrong", "collapsed", "polluted")
"""Of all that is measured, what is shown."""


def shown(row: Row) -> dict[str, str]:
    """A row as tables have it: percent, but for tokens and milliseconds."""
    return {
        "checkpoint": row["checkpoint"],
        "way": row["way"],
        **{name: spread([100 * share for share in row[name]]) for name in RATES},
        "tokens": spread(row["tokens"], ",.0f"),
        "ms_a_turn": spread(row["ms_a_turn"]),
        "errors": row["errors"],
    }


def sizes(row: Row) -> str:
    """How many samples of how many prompts it is of."""
    return f"{len(row['prompts'])} x {row['prompts'][0]} prompts"


def recovered_section(rows: list[Row], folder: Path) -> str:
    """As Markdown; the figure goes into the folder."""
    names = list(dict.fromkeys(row["checkpoint"] for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    exact = {(row["way"], row["checkpoint"]): row["exact_match"] for row in rows}
    cells = [
        [quartiles(found)[1] if (found := exact.get((way, name))) else None for name in names]
        for way in ways
    ]
    heat_map(ways, names, cells, folder / "recovered_validity.png")
    return (
        "![Exact calls by way and checkpoint](results/recovered_validity.png)\n\n"
        f"Percent of {sizes(rows[0])}.\n\n{table([*map(shown, rows)])}"
    )
