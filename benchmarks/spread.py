"""Medians with their quartiles, as all tables here show them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


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
