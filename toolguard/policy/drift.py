"""Spikes of control mass in a step, and drift of the format over a stream of turns."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ProfileError, RequestError
from ..report.report import Position, Step
from .profile import ILLEGAL, POSITIONS, Measure, Profile, Sign, signs

ILLEGAL_SPIKE = 0.5
"""Without a profile, an illegal token above this mass is a spike: masks overrule it in any case."""

LEVELS = (1 / 64, 1 / 16, 1 / 4)
"""How rare a sign has to be among healthy turns, at most, for a bet on it to pay."""
BETS = (1 / 2, 1 / 8, 1 / 32)
"""Which part of its capital a bet puts on each turn: many see a sudden change, few a rare sign."""
DEFAULT_RATE = 1 / 16
"""Without a profile: how many healthy turns have an illegal spike at a position, at most."""

_PLACES: dict[Position, str] = {
    "start": "at the start of the turn",
    "opened": "right after the opener of a call",
    "value": "inside a value",
    "structure": "between the values of a call",
    "closed": "after a call",
    "text": "in text",
    "reasoning": "in reasoning",
}


@dataclass(frozen=True, slots=True)
class Spike:
    """Control mass that a healthy model does not have there.

    Attributes:
        step: the step.
        control: the control token.
        mass: its mass, before any mask.
        p_value: its conformal p-value; None where the profile has too few steps to tell, and an
            illegal token had more than half of the mass.
    """

    step: Step
    control: str
    mass: float
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """The format of this deployment is drifting.

    Attributes:
        turn: the number of the turn that raised it; the first one is 1.
        since: the turn after which the detector last started afresh.
        statistic: the e-detector's, at least `Drift.run_length`.
        control: the control token that contributed most, or `illegal tokens`.
        position: where.
        measure: whether its `mass` was too large, or the model's `doubt` about it,
            min(mass, 1 - mass).
        size: the largest mass or doubt there since then.
        healthy: the size that 99 of 100 healthy turns do not exceed; NaN without a profile.
    """

    turn: int
    since: int
    statistic: float
    control: str
    position: Position
    measure: Measure
    size: float
    healthy: float

    def __str__(self) -> str:
        what = "mass of" if self.measure == "mass" else "doubt about"
        known = ""
        if self.healthy == 0:
            known = "; 99 of 100 healthy turns have none there"
        elif self.healthy > 0:  # not NaN
            known = f"; in 99 of 100 healthy turns it is at most {self.healthy:.3g}"
        return (
            f"turn {self.turn}: the format is drifting. The {what} {self.control} "
            f"{_PLACES[self.position]} was up to {self.size:.3g} in the last "
            f"{self.turn - self.since} turns{known}"
        )


def spikes(profile: Profile, steps: Iterable[Step], alpha: float = 0.01) -> list[Spike]:
    """The spikes of some steps.

    A step of a healthy model has one with probability at most `alpha`: p-values are conformal, and
    Bonferroni's bound corrects for the control tokens of the format. That takes
    len(controls) / alpha recorded steps at a place; where the profile has fewer, only an illegal
    control token with more than half of the mass is a spike, at a rate that nothing bounds.
    Conformal p-values ask that healthy steps be exchangeable; steps of one turn are not quite, so
    the rate is one over turns as they come, not over the steps of an unusual turn.

    Args:
        profile: of the healthy model.
        steps: of one turn or of many.
        alpha: the false-alarm rate per step.

    Raises:
        RequestError: `alpha` is no probability.
    """
    if not 0 < alpha < 1:
        raise RequestError(f"alpha={alpha} is no false-alarm rate: it has to be between 0 and 1")
    found = []
    for step in steps:
        level = alpha / max(1, len(profile.controls))
        calibrated = level * (profile.count(step.region, step.position) + 1) >= 1
        for control, mass in step.masses.items():
            if calibrated:
                p = profile.p_value(control, step.region, step.position, mass)
                if p <= level:
                    found.append(Spike(step, control, mass, p))
            # Both above a half: then that control token is among the illegal ones.
            elif min(mass, step.illegal) > ILLEGAL_SPIKE:
                found.append(Spike(step, control, mass, None))
    return found


class Drift:
    """Tells when a deployment's format begins to drift, from turn to turn.

    A Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, arXiv 2203.03532). For each sign of a
    turn (control token, position, largest mass or largest doubt; see `Profile`) and each level, a
    bet is made that the sign is in that upper tail of healthy turns: e = 1 - bet + bet / level if
    it is, and 1 - bet if not. Each runs M = (M + 1) * e, and the alarm is raised when their mean
    reaches `run_length`. The mean of e-detectors is an e-detector, however they depend on each
    other: so healthy turns that are drawn alike and independently raise the alarm every
    `run_length` turns or less often, on average. Then it starts afresh.

    What that rests on: the tails are those of a finite calibration, so they are confidence bounds
    that hold for all signs and levels at once; the statement holds for all calibrations but a share
    `risk` of them. And "drawn alike" includes the requests: a deployment that is asked other
    things than the calibration, or decodes otherwise, has other signs, and that is reported too.

    It sees control mass where healthy turns have little, and doubt where they have none. It does
    not see a control token that is gone from one turn to the next without either.

    Without a recorded profile (`Profile.default()`) the only sign is an illegal token above half
    of the mass, which healthy turns are assumed to have at a position once in 16 turns.

    Args:
        profile: of the healthy model.
        run_length: healthy turns between two false alarms, on average, at least.
        risk: the share of calibrations for which that may fail.

    Attributes:
        turns: the number of turns seen.
        statistic: the detector's value.

    Raises:
        ProfileError: the profile has too few turns for any alarm.
        RequestError: a parameter is out of its range.
    """

    def __init__(self, profile: Profile, *, run_length: float = 10_000, risk: float = 0.05) -> None:
        if run_length < 1 or not 0 < risk < 1:
            raise RequestError(
                f"run_length={run_length}, risk={risk}: the first is a number of turns, the "
                "second a probability"
            )
        measures: tuple[Measure, ...] = ("mass", "doubt")
        self.profile, self.run_length = profile, run_length
        self.signs: tuple[Sign, ...] = tuple(
            product((*profile.controls, ILLEGAL), POSITIONS, measures)
        )
        self._rows = {sign: row for row, sign in enumerate(self.signs)}
        self._risk = risk / (len(self.signs) * len(LEVELS))
        if profile.turns and profile.sign_bound(self.signs[0], 2.0, self._risk) > max(LEVELS):
            raise ProfileError(
                f"a profile of {profile.turns} turns can raise no alarm: record some hundred"
            )
        self._levels, self._bets = np.array(LEVELS)[None, :, None], np.array(BETS)
        self.turns = self._since = 0
        self.statistic = 0.0
        # one row a sign; capital by levels and bets
        self._capital = np.zeros((len(self.signs), len(LEVELS), len(BETS)))
        self._sizes = np.zeros(len(self.signs))

    def update(self, steps: Iterable[Step]) -> Alarm | None:
        """Takes in one finished turn; the alarm, if it raises one.

        After an alarm the detector starts afresh.

        Raises:
            ProfileError: the turn has no steps, or control tokens that the profile lacks.
        """
        steps = list(steps)
        if not steps:
            raise ProfileError("a turn without steps: decode it with trace=True, which keeps them")
        rates = np.ones(len(self.signs))
        for sign, size in signs(steps).items():
            row = self._rows.get(sign)
            if row is None:
                if self.profile.controls:
                    raise ProfileError(
                        f"a profile of {self.profile.wire_format} does not know {sign[0]!r}"
                    )
                continue
            rates[row] = self._rate(sign, size)
            if rates[row] <= max(LEVELS):
                self._sizes[row] = max(self._sizes[row], size)
        hits = rates[:, None, None] <= self._levels
        self._capital = (self._capital + 1) * (1 - self._bets + self._bets * hits / self._levels)
        self.turns += 1
        self.statistic = float(self._capital.mean())
        if self.statistic < self.run_length:
            return None
        row = int(self._capital.sum((1, 2)).argmax())
        control, position, measure = self.signs[row]
        alarm = Alarm(
            self.turns,
            self._since,
            self.statistic,
            control,
            position,
            measure,
            float(self._sizes[row]),
            self.profile.sign_quantile(self.signs[row], 0.99),
        )
        self._restart()
        return alarm

    def to_json(self) -> dict[str, Any]:
        """What the detector has seen, as plain JSON values: `resume` goes on from there."""
        return {
            "turns": self.turns,
            "since": self._since,
            "statistic": self.statistic,
            "capital": _packed(self._capital),
            "sizes": _packed(self._sizes),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from where another detector with the same profile and parameters was.

        Raises:
            ProfileError: the state is broken, or of a profile with other control tokens.
        """
        try:
            capital = _unpacked(state["capital"]).reshape(self._capital.shape)
            sizes = _unpacked(state["sizes"]).reshape(self._sizes.shape)
            self.turns, self._since = int(state["turns"]), int(state["since"])
            self.statistic = float(state["statistic"])
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ProfileError(f"the state of a drift detector is broken: {error!r}") from error
        self._capital[:], self._sizes[:] = capital, sizes

    def _rate(self, sign: Sign, size: float) -> float:
        """A bound of the share of healthy turns with a sign as large."""
        if self.profile.turns:
            return self.profile.sign_bound(sign, size, self._risk)
        return DEFAULT_RATE if sign[2] == "mass" and size > ILLEGAL_SPIKE else 1.0

    def _restart(self) -> None:
        self._since, self.statistic = self.turns, 0.0
        self._capital[:] = 0
        self._sizes[:] = 0


def _packed(values: NDArray[np.float64]) -> str:
    return base64.b64encode(zlib.compress(values.astype("<f8").tobytes())).decode("ascii")


def _unpacked(text: str) -> NDArray[np.float64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f8")
