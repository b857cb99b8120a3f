"""How tables show what was measured: medians with their quartiles, and rows as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper one."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(values: Sequence[float], form: str = ".0f") -> str:
    """`median (lower-upper)`; the median alone where they read the same; empty of no values."""
    if not values:
        return ""
    low, middle, high = (format(value, form) for value in quartiles(values))
    return middle if low == high else f"{middle} ({low}-{high})"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as Markdown; the columns are all that any of them has."""
    heads = list(dict.fromkeys(head for row in rows for head in row))
    lines = ["| " + " | ".join(name.replace("_", " ") for name in heads) + " |"]
    lines.append("|" + "---|" * len(heads))
    lines += ["| " + " | ".join(_cell(row.get(head, "")) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
