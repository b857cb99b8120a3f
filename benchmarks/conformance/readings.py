"""What toolguard's readers and its repair make of a fixture, in the suite's terms."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from canitoolcall.chunking import DEFAULT_STRATEGIES, ChunkStrategy, split
from canitoolcall.results import Observation, ParsedToolCall, ParseResult

import toolguard
from toolguard import (
    ArgumentsDelta,
    CallEnd,
    CallName,
    Event,
    Guard,
    GuardState,
    ReasoningDelta,
    Repair,
    TextDelta,
    ToolguardError,
    Turn,
    TurnEnd,
    TurnParser,
)

from .cases import Case
from .ids import Ids

CUTS = (ChunkStrategy("one"), ChunkStrategy("char"), *(ChunkStrategy("rand", s) for s in range(5)))
"""Of text: whole, by character, and in five random ways; the suite's own cuts are of ids."""


def read(case: Case) -> Observation:
    """The finished turn."""
    return Observation(_said(lambda: turn_of(case)), {})


def stream(case: Case) -> Observation:
    """The finished turn, and the same turn cut into pieces of text."""
    return Observation(read(case).nonstream, streamed(case, CUTS))


def streamed(case: Case, cuts: Sequence[ChunkStrategy]) -> dict[str, ParseResult]:
    """What the events of a turn that comes in pieces of text put together, by how it is cut."""
    text = case.fixture.raw_output
    return {
        f"text:{cut.id}": _put_together(
            TurnParser(case.wire_format, case.toolset, opened=case.opened),
            ("".join(piece) for piece in split(text, cut)),
            case,
        )
        for cut in cuts
    }


def by_ids(case: Case, ids: Ids) -> Observation:
    """The same of token ids, in the suite's own cuts."""
    try:
        guard = compiled(case, ids)
    except ToolguardError as error:
        return Observation(_raised(error), {})
    words = walked(guard, ids).mentions
    whole = _put_together(guard.parser(words), [ids.ids], case)
    controls = {*guard.control_texts, *guard.vocabulary.specials}
    streams = {
        cut.id: _put_together(guard.parser(words), split(ids.ids, cut, special=controls), case)
        for cut in DEFAULT_STRATEGIES
    }
    return Observation(whole, streams)


def turn_of(case: Case) -> Turn:
    """What `read_turn` says of it."""
    return toolguard.read_turn(
        case.fixture.raw_output,
        case.wire_format,
        case.toolset,
        opened=case.opened,
        ended=not case.fixture.truncated,
    )


@cache
def repaired(case: Case) -> Repair:
    """What `repair` makes of it."""
    return toolguard.repair(
        case.fixture.raw_output, case.toolset, case.wire_format, opened=case.opened
    )


def repair(case: Case) -> Observation:
    """The turn after repair."""
    return Observation(_said(lambda: repaired(case).after), {})


def compiled(case: Case, ids: Ids) -> Guard:
    """The guard of its request."""
    return Guard.compile(case.wire_format, case.toolset, ids.tokenizer, reasoning=case.opening)


def walked(guard: Guard, ids: Ids) -> GuardState:
    """The state of a guard that a model's own greedy turn is taken through, as far as it goes."""
    state = guard.start(10_000)
    for token in ids.ids:
        if not state.retrace(token):
            break
    return state


def _said(turn: Callable[[], Turn]) -> ParseResult:
    try:
        found = turn()
    except ToolguardError as error:
        return _raised(error)
    calls = tuple(ParsedToolCall(c.name, _json(c.arguments)) for c in found.calls)
    return ParseResult(found.text, found.reasoning, calls)


def _put_together(
    parser: TurnParser, pieces: Iterable[str | Sequence[int]], case: Case
) -> ParseResult:
    """The events of a turn as a client adds them up; calls that come to no end are left out."""
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    events += parser.finish(ended=not case.fixture.truncated)
    assert isinstance(events.pop(), TurnEnd)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    ended: list[int] = []
    content = reasoning = ""
    for event in events:
        match event:
            case TextDelta(text):
                content += text
            case ReasoningDelta(text):
                reasoning += text
            case CallName(index, name):
                names[index] = name
            case ArgumentsDelta(index, text):
                arguments[index] = arguments.get(index, "") + text
            case CallEnd(index):
                ended.append(index)
    calls = tuple(ParsedToolCall(names[i], arguments.get(i, "")) for i in ended)
    return ParseResult(content, reasoning, calls)


def _raised(error: ToolguardError) -> ParseResult:
    return ParseResult(exception=f"{type(error).__name__}: {error}")


def _json(arguments: Mapping[str, object]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
