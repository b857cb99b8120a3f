"""How a model answered: its states, its faults, and what of it is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..evaluation.asking import asked_in
from ..evaluation.cases import Case
from ..evaluation.rates import Rate
from ..evaluation.score import is_exact
from ..evaluation.subject import Mode, Subject
from ..formats.wire_format import WireFormat
from ..parsing.turn import STATES, Turn


def answers(cases: Sequence[Case], turns: Sequence[Turn]) -> dict[str, Any]:
    """Shares with their confidence intervals, as JSON values, of turns that answer cases."""
    pairs = list(zip(cases, turns, strict=True))
    states = Counter(turn.state for turn in turns)
    faults = Counter(kind for turn in turns for kind in {fault.kind for fault in turn.faults})
    reports = [turn.report for turn in turns if turn.report]
    return {
        "states": {state: Rate(states[state], len(turns)).to_json() for state in STATES},
        "faults": dict(faults.most_common()),
        "schema_valid": Rate.among(
            [turn.state == "healthy_call" for turn in turns if turn.calling]
        ).to_json(),
        "exact_match": Rate.among([is_exact(c, turn) for c, turn in pairs if c.calls]).to_json(),
        "no_call_kept": Rate.among(
            [turn.state == "healthy_response" for c, turn in pairs if not c.calls]
        ).to_json(),
        "tokens": sum(report.tokens for report in reports),
        "forward_passes": sum(report.forward_passes for report in reports),
    }


def right(cases: Sequence[Case], turns: Sequence[Turn]) -> list[bool]:
    """Which turns have the expected calls, or are healthy replies where none is needed."""
    return [
        is_exact(case, turn) if case.calls else turn.state == "healthy_response"
        for case, turn in zip(cases, turns, strict=True)
    ]


def described(
    subject: Subject, wire_format: WireFormat, mode: Mode, *, compact: bool = False
) -> Callable[[Sequence[Case]], Iterator[Any]]:
    """What asks cases in a wire format, the messages describing the tools."""

    def ask(cases: Sequence[Case]) -> Iterator[Any]:
        asked = [asked_in(case, wire_format, compact=compact) for case in cases]
        return as_json(subject.answer_in(asked, wire_format, mode))

    return ask


def as_json(turns: Iterable[Turn]) -> Iterator[Any]:
    """Turns as a journal keeps them."""
    return (turn.to_json() for turn in turns)
