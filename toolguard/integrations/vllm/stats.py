"""What the guard did in one engine, as figures that can be sent to the API server and added up."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...decoding.state import GuardState
from ...decoding.watch import Watch

PRESSURES = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Upper bounds of the histogram of mask pressure per step, in nats."""
MASSES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Upper bounds of the histogram of control mass."""
OTHER = "other"
"""Stands for all tokens that are no control tokens: each label is a series of its own."""


class Histogram:
    """Counts by upper bound; the last count is of what is above all of them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def to_json(self) -> dict[str, Any]:
        return {"counts": self.counts, "sum": self.sum}


class Stats:
    """Figures of one engine since its start.

    Attributes:
        turns: guarded turns that are over.
        intervened: those of them in which something was done.
        left: those that left the grammar, because something else overruled the guard.
        unguarded: requests whose guard could not be made; they ran without one.
        interventions: how many, by action and the token that the model wanted.
        pressure: of steps with a mask pressure, in nats.
        masses: of steps at which a control token reached the watch's gate, by its text.
        compiled, compile_seconds: guards made, and what that took.
        steps, step_seconds: steps with guarded rows, and what the guard took of them.
        fill_seconds: how much of that it took to fill the masks.
        alarms: how often the drift alarm was raised.
        drift: its statistic.
    """

    def __init__(self) -> None:
        self.turns = self.intervened = self.left = self.unguarded = 0
        self.interventions: dict[str, Counter[str]] = {}
        self.pressure = Histogram(PRESSURES)
        self.masses: dict[str, Histogram] = {}
        self.compiled = self.steps = 0
        self.compile_seconds = self.step_seconds = self.fill_seconds = 0.0
        self.alarms, self.drift = 0, 0.0

    def read(self, pressure: float, masses: dict[str, float]) -> None:
        """Counts what the watch read before one token."""
        if pressure > 0:
            self.pressure.add(pressure)
        for token, mass in masses.items():
            self.masses.setdefault(token, Histogram(MASSES)).add(mass)

    def end(self, state: GuardState) -> None:
        """Counts a turn that is over."""
        self.turns += 1
        self.intervened += bool(state.interventions)
        self.left += state.lost
        known = {*Watch.of(state.guard).tokens, *state.guard.vocabulary.specials}
        for done in state.interventions:
            token = done.token if done.token_id in known else OTHER
            self.interventions.setdefault(done.action, Counter())[token] += 1

    def to_json(self, live: int) -> dict[str, Any]:
        """The same as plain values.

        Args:
            live: how many guarded requests there are now.
        """
        return {
            "live": live,
            "turns": self.turns,
            "intervened": self.intervened,
            "left": self.left,
            "unguarded": self.unguarded,
            "interventions": self.interventions,
            "pressure": self.pressure.to_json(),
            "masses": {token: found.to_json() for token, found in self.masses.items()},
            "compiled": self.compiled,
            "compile_seconds": self.compile_seconds,
            "steps": self.steps,
            "step_seconds": self.step_seconds,
            "fill_seconds": self.fill_seconds,
            "alarms": self.alarms,
            "drift": self.drift,
        }


def engine_of(workers: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The figures of an engine, from those of its workers.

    Each worker that samples guards the same rows, and has the same figures; the others have none.
    """
    found = [figures for figures in workers if figures is not None]
    return max(found, key=lambda figures: int(figures["steps"]), default=None)


def added(engines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several engines, each with requests of its own; of drift, the largest."""
    total = _sum(engines)
    return {**total, "drift": max(figures["drift"] for figures in engines)}


def _sum(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _sum([v[name] for v in values if name in v]) for name in names}
    if isinstance(values[0], list):
        return [_sum(column) for column in zip(*values, strict=True)]
    return sum(values)
