"""How a model answered: its states, its faults, and what of it is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..evaluation.asking import asked_in
from ..evaluation.cases import Case
from ..evaluation.rates import Rate
from ..evaluation.score import fault_counts, hits, is_right
from ..evaluation.subject import Mode, Subject
from ..formats.wire_format import WireFormat
from ..parsing.turn import STATES, Turn


def answers(cases: Sequence[Case], turns: Sequence[Turn]) -> dict[str, Any]:
    """Shares with their confidence intervals, as JSON values, of turns that answer cases."""
    states = Counter(turn.state for turn in turns)
    reports = [turn.report for turn in turns if turn.report]
    return {
        "states": {state: Rate(states[state], len(turns)).to_json() for state in STATES},
        "faults": dict(fault_counts(turns).most_common()),
        **{name: Rate.among(found).to_json() for name, found in hits(cases, turns).items()},
        "tokens": sum(report.tokens for report in reports),
        "forward_passes": sum(report.forward_passes for report in reports),
    }


def right(cases: Sequence[Case], turns: Sequence[Turn]) -> list[bool]:
    """Which turns have the expected calls, or are healthy replies where none is needed."""
    return [is_right(case, turn) for case, turn in zip(cases, turns, strict=True)]


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
