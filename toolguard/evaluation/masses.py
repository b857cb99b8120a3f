"""Mean control mass by place: where a model has how much of its probability on control tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ..policy.profile import ILLEGAL, POSITIONS
from ..report.report import Position, Step


class ControlMass:
    """The mean control mass over steps, by position and control token.

    A step at which a token did not reach the watch's gate (`toolguard.Step`) counts as mass 0 of
    it, so a mean is too small by at most the gate, 0.001. `ILLEGAL` stands for all illegal tokens
    together.
    """

    def __init__(self) -> None:
        self._steps: Counter[Position] = Counter()
        self._sums: dict[Position, Counter[str]] = defaultdict(Counter)
        self._chosen: dict[Position, Counter[str]] = defaultdict(Counter)

    def add(self, steps: Iterable[Step]) -> None:
        """Takes in the steps of a turn."""
        for step in steps:
            self._steps[step.position] += 1
            self._sums[step.position].update({**step.masses, ILLEGAL: step.illegal})
            self._chosen[step.position][step.token] += 1

    def count(self, position: Position) -> int:
        """How many steps stood there."""
        return self._steps[position]

    @property
    def tokens(self) -> list[str]:
        """The control tokens that reached the gate somewhere, the most massive first."""
        total: Counter[str] = Counter()
        for sums in self._sums.values():
            total.update(sums)
        return [token for token, _ in total.most_common() if token != ILLEGAL]

    def mean(self, token: str, position: Position) -> float:
        """The mean mass of a token there, from 0 to 1; 0 where no step stood."""
        steps = self._steps[position]
        return self._sums[position][token] / steps if steps else 0.0

    def share(self, token: str, position: Position) -> float:
        """At which share of the steps there the token was the one that came next: along a right
        turn, the mass that it ought to have."""
        steps = self._steps[position]
        return self._chosen[position][token] / steps if steps else 0.0

    def to_json(self) -> list[dict[str, Any]]:
        """By position: the number of steps, and the mean masses that are not 0."""
        return [
            {
                "position": position,
                "steps": self._steps[position],
                "masses": {
                    token: round(total / self._steps[position], 6)
                    for token, total in self._sums[position].most_common()
                    if total
                },
            }
            for position in POSITIONS
            if self._steps[position]
        ]

    @staticmethod
    def of_json(rows: Iterable[Mapping[str, Any]]) -> ControlMass:
        """What `to_json` wrote; which tokens came next (`share`) is not in it."""
        read = ControlMass()
        for row in rows:
            read._steps[row["position"]] = row["steps"]
            for token, mass in row["masses"].items():
                read._sums[row["position"]][token] = mass * row["steps"]
        return read
