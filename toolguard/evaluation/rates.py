"""Rates and differences of rates, with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Z = 1.959964  # 95%


@dataclass(frozen=True)
class Rate:
    """A share of cases, with its 95% confidence interval.

    Attributes:
        hits: the cases that count.
        of: all of them.
        low, high: Wilson's score interval; from 0 to 1 where there is no case.
    """

    hits: int
    of: int

    @staticmethod
    def among(found: Sequence[bool]) -> Rate:
        """The share of the true ones."""
        return Rate(sum(found), len(found))

    @property
    def share(self) -> float:
        """From 0 to 1; 0 where there is no case."""
        return self.hits / self.of if self.of else 0.0

    @property
    def low(self) -> float:
        return self._bounds()[0]

    @property
    def high(self) -> float:
        return self._bounds()[1]

    def _bounds(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        weight = Z * Z / self.of
        middle = (self.share + weight / 2) / (1 + weight)
        half = Z * math.sqrt(self.share * (1 - self.share) / self.of + weight / (4 * self.of))
        half /= 1 + weight
        return max(0.0, min(middle - half, self.share)), min(1.0, max(middle + half, self.share))

    def to_json(self) -> dict[str, Any]:
        """Counts, share and interval."""
        return {
            "hits": self.hits,
            "of": self.of,
            "share": round(self.share, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
        }

    def __str__(self) -> str:
        return f"{self.share:.1%} ({self.low:.1%} to {self.high:.1%})" if self.of else "no case"


@dataclass(frozen=True)
class Difference:
    """By how much the first of two shares of the same cases is larger, with its 95% confidence
    interval (Agresti and Min, "Simple improved confidence intervals for comparing matched
    proportions", 2005)."""

    share: float
    low: float
    high: float

    @staticmethod
    def between(first: Sequence[bool], second: Sequence[bool]) -> Difference:
        """Both are of the same cases, in the same order."""
        pairs = list(zip(first, second, strict=True))
        gained = sum(a and not b for a, b in pairs) + 0.5
        lost = sum(b and not a for a, b in pairs) + 0.5
        n = len(pairs) + 2
        middle = (gained - lost) / n
        half = Z * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
        share = (gained - lost) / len(pairs) if pairs else 0.0
        return Difference(share, max(-1.0, middle - half), min(1.0, middle + half))

    def to_json(self) -> dict[str, Any]:
        """Difference and interval."""
        return {name: round(getattr(self, name), 4) for name in ("share", "low", "high")}
