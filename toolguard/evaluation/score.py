"""Scores finished turns against the cases they answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..parsing.turn import STATES, Turn
from .case import Acceptable, Case


@dataclass(frozen=True)
class Score:
    """Rates over one set of cases, each from 0 to 1.

    Attributes:
        prompts: the number of cases.
        states: the share of turns in each of the four states.
        schema_valid: of the turns that call, the share whose every call parses and satisfies its
            tool's schema; 0 if no turn calls.
        exact_match: of the cases that need calls, the share with exactly the expected calls.
        no_call_kept: of the cases that need none, the share answered by a healthy reply that the
            model ended within its budget.
        ms_per_token: wall milliseconds for one token of one turn in a batch.
        forward_passes: forward passes, summed over the turns.
        tokens: tokens, summed over the turns.
    """

    prompts: int
    states: dict[str, float]
    schema_valid: float
    exact_match: float
    no_call_kept: float
    ms_per_token: float
    forward_passes: int
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """The score as plain JSON values."""
        return asdict(self)


def score(cases: Sequence[Case], turns: Sequence[Turn], seconds: float) -> Score:
    """The score of turns that took `seconds` of wall time, one per case, in order."""
    states = Counter(turn.state for turn in turns)
    reports = [turn.report for turn in turns if turn.report is not None]
    tokens = sum(report.tokens for report in reports)
    return Score(
        prompts=len(cases),
        states={state: _rate(states[state], len(turns)) for state in STATES},
        **{name: _rate(sum(found), len(found)) for name, found in hits(cases, turns).items()},
        ms_per_token=round(1000 * seconds / tokens, 3) if tokens else 0.0,
        forward_passes=sum(report.forward_passes for report in reports),
        tokens=tokens,
    )


def hits(cases: Sequence[Case], turns: Sequence[Turn]) -> dict[str, list[bool]]:
    """For each rate of `Score`, the turns that it is of, and whether they count."""
    pairs = list(zip(cases, turns, strict=True))
    return {
        "schema_valid": [turn.state == "healthy_call" for turn in turns if turn.calling],
        "exact_match": [is_exact(case, turn) for case, turn in pairs if case.calls],
        "no_call_kept": [is_kept(turn) for case, turn in pairs if not case.calls],
    }


def fault_counts(turns: Iterable[Turn]) -> Counter[str]:
    """How many turns have a kind of fault; a turn counts once for each kind."""
    return Counter(kind for turn in turns for kind in {fault.kind for fault in turn.faults})


def is_right(case: Case, turn: Turn) -> bool:
    """Whether a turn has the expected calls, or is a kept reply where none is needed."""
    return is_exact(case, turn) if case.calls else is_kept(turn)


def is_kept(turn: Turn) -> bool:
    """Whether a turn is a healthy reply that the model ended: one that runs to its budget may be
    words without end, or markup."""
    return turn.state == "healthy_response" and not (turn.report and turn.report.cut)


def is_exact(case: Case, turn: Turn) -> bool:
    """Whether a turn is healthy and makes exactly the expected calls.

    In order, unless the case says that the order does not matter; with the expected values, or
    others that it says are acceptable.
    """
    made = [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
    if not turn.state.startswith("healthy") or len(made) != len(case.calls):
        return False
    places = range(len(made))
    fits = [{i for i in places if _is_right(case, i, call)} for call in made]
    if case.order == "given":
        return all(i in fits[i] for i in places)
    taken: dict[int, int] = {}  # the expected call -> the call that is it
    return all(_match(i, fits, taken, set()) for i in places)


def _match(made: int, fits: list[set[int]], taken: dict[int, int], seen: set[int]) -> bool:
    """Finds an expected call for one more call, moving others where that helps."""
    for wanted in fits[made] - seen:
        seen.add(wanted)
        if wanted not in taken or _match(taken[wanted], fits, taken, seen):
            taken[wanted] = made
            return True
    return False


def _is_right(case: Case, wanted: int, made: Mapping[str, Any]) -> bool:
    """Whether a call is the expected one of that place."""
    expected, given = case.calls[wanted]["arguments"], made["arguments"]
    if made["name"] != case.calls[wanted]["name"] or not isinstance(given, Mapping):
        return False
    also = case.acceptable[wanted] if case.acceptable else Acceptable({}, frozenset())
    if expected.keys() - also.omittable - given.keys():
        return False
    return all(
        (name in expected and _typed(value) == _typed(expected[name]))
        or any(_typed(value) == _typed(other) for other in also.arguments.get(name, ()))
        for name, value in given.items()
    )


def _typed(value: Any) -> Any:
    """JSON values told apart where Python takes them for equal: 1 and true."""
    match value:
        case bool():
            return ("boolean", value)
        case dict():
            return {key: _typed(inner) for key, inner in value.items()}
        case list():
            return [_typed(inner) for inner in value]
        case _:
            return value


def _rate(count: int, of: int) -> float:
    return round(count / of, 4) if of else 0.0
