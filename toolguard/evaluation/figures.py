"""The figures of one model at one step of its training: what it does with cases, unguarded."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from ..parsing.turn import STATES, Turn
from ..policy.drift import Alarm, Drift
from ..policy.profile import ILLEGAL, POSITIONS, Profile
from ..report.report import GATE, Position
from .case import Case
from .masses import ControlMass
from .score import fault_counts, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..formats.wire_format import WireFormat


@dataclass(frozen=True)
class Figures:
    """What the turns of one step of a training are.

    Of rollouts without logits only the first three are known.

    Attributes:
        turns: how many.
        states: turns by state.
        faults: turns by the kinds of their faults; a turn counts once for each kind.
        schema_valid: as in `Score`, and so are the next two.
        exact_match: the same.
        no_call_kept: the same.
        mass: the mean control mass by position and token.
        statistic: the largest value of the drift detector during the step; None where there is
            no detector.
        alarms: those that it raised during the step.
    """

    turns: int
    states: Mapping[str, int]
    faults: Mapping[str, int]
    schema_valid: float | None = None
    exact_match: float | None = None
    no_call_kept: float | None = None
    mass: ControlMass = field(default_factory=ControlMass)
    statistic: float | None = None
    alarms: tuple[Alarm, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        alarms = [
            {**asdict(alarm), "healthy": None if math.isnan(alarm.healthy) else alarm.healthy}
            for alarm in self.alarms
        ]
        return {
            "turns": self.turns,
            "states": {state: self.states.get(state, 0) for state in STATES},
            "faults": dict(self.faults),
            "schema_valid": self.schema_valid,
            "exact_match": self.exact_match,
            "no_call_kept": self.no_call_kept,
            "control_mass": self.mass.to_json(),
            "drift_statistic": self.statistic,
            "alarms": alarms,
        }

    @staticmethod
    def of_json(row: Mapping[str, Any]) -> Figures:
        """What `to_json` wrote."""
        alarms = [
            Alarm(**{**alarm, "healthy": math.nan} if alarm["healthy"] is None else alarm)
            for alarm in row["alarms"]
        ]
        return Figures(
            row["turns"],
            row["states"],
            row["faults"],
            row["schema_valid"],
            row["exact_match"],
            row["no_call_kept"],
            ControlMass.of_json(row["control_mass"]),
            row["drift_statistic"],
            tuple(alarms),
        )

    def share(self, state: str) -> float:
        """The share of the turns in a state."""
        return self.states.get(state, 0) / self.turns if self.turns else 0.0

    def masses(self, least: float = GATE) -> dict[tuple[Position, str], float]:
        """The mean control masses that are not smaller, by position and token."""
        found = {}
        for position in POSITIONS:
            for token in (*self.mass.tokens, ILLEGAL):
                mass = self.mass.mean(token, position)
                if mass >= least:
                    found[position, token] = mass
        return found


def figures(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    drift: Drift | None = None,
    *,
    advance: Callable[[], None] = lambda: None,
    **options: Any,
) -> Figures:
    """The figures of a model: it answers the cases unguarded, and is observed.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        cases: what to answer.
        drift: the detector, which takes in the turns one after the other.
        advance: called with each turn.
        options: for `toolguard.answer`, such as `batch`, `max_new_tokens`, `temperature`, `seed`.

    Raises:
        ToolguardError: as `toolguard.answer` and `Drift.update` do.
    """
    turns = []
    mass = ControlMass()
    statistic = None if drift is None else 0.0
    alarms = []
    started = time.perf_counter()
    for turn in _observed(model, tokenizer, cases, options):
        assert turn.report is not None
        turns.append(turn)
        mass.add(turn.report.steps)
        if drift is not None and statistic is not None:
            alarm = drift.update(turn.report.steps)
            if alarm is not None:
                alarms.append(alarm)
            statistic = max(statistic, drift.statistic if alarm is None else alarm.statistic)
        advance()
    scored = score(cases, turns, time.perf_counter() - started)
    return Figures(
        len(turns),
        Counter(turn.state for turn in turns),
        fault_counts(turns),
        scored.schema_valid,
        scored.exact_match,
        scored.no_call_kept,
        mass,
        statistic,
        tuple(alarms),
    )


def record_profile(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    *,
    watch: Callable[[Turn], None] = lambda turn: None,
    wire_format: WireFormat | None = None,
    **options: Any,
) -> Profile:
    """The profile of a model, recorded while it answers cases unguarded.

    Args:
        model: a causal language model, healthy.
        tokenizer: its tokenizer, with a chat template.
        cases: what to answer; some 600 or more.
        watch: called with each turn.
        wire_format: what it writes; its chat template tells unless given.
        options: for `toolguard.answer`, as in the deployment.

    Raises:
        ToolguardError: as `toolguard.answer` does.
    """
    from ..integrations.transformers.generate import end_tokens
    from ..parsing.recognise import recognise

    wire_format = wire_format or recognise(tokenizer)
    profile = Profile.of(wire_format, tokenizer, end_tokens(model, tokenizer, wire_format))
    for turn in _observed(model, tokenizer, cases, {**options, "wire_format": wire_format}):
        assert turn.report is not None
        profile.add(turn.report.steps)
        watch(turn)
    return profile


def drawn(cases: Sequence[Case], limit: int | None, seed: int) -> list[Case]:
    """The cases that each step of a training is asked: `limit` of them, in an order of the seed's.

    A profile is recorded on all cases, these among them: each step is asked the same, so a rare
    sign of one of them comes back at each step, and has to be known for healthy.
    """
    return Random(seed).sample(cases, min(limit or len(cases), len(cases)))


def _observed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    options: dict[str, Any],
) -> Iterator[Turn]:
    from .answer import answer

    return answer(model, tokenizer, cases, policy="observe", trace=True, **options)
