"""Finds the smallest edits with which a format's own parser follows a turn to its end.

The parser stumbles at a place, and says what it would accept there. Each change that makes it go on
is a step; the ways with the fewest come first (Dijkstra's algorithm over edits). Every way starts
again where the parser stood, so a turn is not read twice, and their number is bounded: the time is
linear in the turn.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeAlias

from lark import Token, UnexpectedInput
from lark.parsers.lalr_parser_state import ParserState

from ..formats.reader import lexing
from ..formats.wire_format import WireFormat
from ..parsing.opening import START, Known
from ..parsing.parser import after, feed, recogniser
from .edits import Edit

MAX_EDITS = 8
"""More than these in one turn are no repair."""
MAX_WAYS = 400
"""How many ways are looked at."""
_LAST = 3  # how many tokens back something may be changed
_SAME_PLACE = 5  # how much may be put in at one place

State: TypeAlias = "ParserState[Any]"


@dataclass(frozen=True, slots=True)
class Change:
    """A possible edit: `text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str
    rule: str
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Way:
    """A turn with some edits, read as far as the parser follows.

    Attributes:
        text: the turn with the edits.
        edits: those made, in the order of the source.
        cost: what they cost.
        at: where the parser stands, in `text`.
        state: how it stands there.
        done: the end of the last edit, in `text`.
        shift: how much longer than the source `text` is up to there.
        insertions: how many edits in a row put something in at one place.
    """

    text: str
    edits: tuple[Edit, ...]
    cost: int
    at: int
    state: State
    done: int = 0
    shift: int = 0
    insertions: int = 0

    def changed(self, change: Change, at: int, state: State) -> Way:
        """This way with one more edit, to be read on from `at`."""
        span = change.start - self.shift, change.end - self.shift
        edit = Edit(span, self.text[change.start : change.end], change.new, change.rule)
        text = self.text[: change.start] + change.new + self.text[change.end :]
        insertion = change.start == change.end
        same = insertion and change.start == self.done
        return Way(
            text,
            (*self.edits, edit),
            self.cost + change.cost,
            at,
            state,
            change.start + len(change.new),
            self.shift + len(change.new) - (change.end - change.start),
            (self.insertions if same else 0) + 1 if insertion else 0,
        )


@dataclass(frozen=True, slots=True)
class Stumble:
    """Where the parser cannot follow.

    Attributes:
        way: the way so far.
        place: where in its text.
        state: how the parser stands there.
        tokens: the last tokens before, each with the state in front of it, the last one first.
    """

    way: Way
    place: int
    state: State
    tokens: tuple[tuple[Token, State], ...]

    @property
    def expected(self) -> Sequence[str]:
        """The terminals that may come."""
        return [
            name for name in self.state.parse_conf.states[self.state.position] if name.isupper()
        ]


Propose: TypeAlias = Callable[[Stumble], Iterator[Change]]


def begin(wire_format: WireFormat, text: str, opened: Known) -> Way:
    """A turn without edits, whose prompt had opened that."""
    parser = wire_format.reader.lark.parse_interactive("", start=START[opened])
    return Way(text, (), 0, 0, parser.parser_state)


def solutions(
    wire_format: WireFormat,
    starts: Sequence[Way],
    propose: Propose,
    sound: Callable[[Way], bool],
    is_wrong: Callable[[Token], bool],
) -> list[Way]:
    """The ways with the fewest edits that the parser follows to the end, and that are sound.

    Args:
        starts: where to begin.
        propose: what may be changed where the parser stumbles.
        sound: whether the text of a way reads without a fault.
        is_wrong: whether a token is what none can be: the parser stumbles there.
    """
    lexer = wire_format.reader.lark.parse_interactive("", start="start").lexer_thread.lexer
    order = count()
    # A way's text is made when its turn comes: most never have one.
    agenda: list[tuple[int, int, Callable[[], Way]]] = [
        (way.cost, next(order), partial(_itself, way)) for way in starts
    ]
    heapq.heapify(agenda)
    found: list[Way] = []
    texts: set[str] = set()
    looked = 0
    while agenda and looked < MAX_WAYS:
        cost, _, make = heapq.heappop(agenda)
        if found and cost > found[0].cost:
            break
        looked += 1
        way = make()
        stumble = _read(lexer, way, is_wrong)
        if stumble is None:
            if way.text not in texts and sound(way):
                found.append(way)
            texts.add(way.text)
            continue
        for change in propose(stumble):
            if change.start < way.done or way.cost + change.cost > MAX_EDITS:
                continue
            if change.start == change.end == way.done and way.insertions >= _SAME_PLACE:
                continue
            further: Callable[[], Way] = partial(
                way.changed, change, *_resume(stumble, change.start, change.new)
            )
            heapq.heappush(agenda, (way.cost + change.cost, next(order), further))
    # Among the ways that nobody looked at there may be another one as short.
    return [] if agenda and found and agenda[0][0] <= found[0].cost else found


def follows(wire_format: WireFormat, text: str, opened: Known) -> bool:
    """Whether the parser follows a text to its end, where more may have to come."""
    try:
        deque(tokens(wire_format, text, opened), maxlen=0)
    except UnexpectedInput:
        return False
    return True


def tokens(wire_format: WireFormat, text: str, opened: Known) -> Iterator[Token]:
    """The tokens of a text, as its format's parser reads them.

    Raises:
        UnexpectedInput: it does not follow.
    """
    parser = wire_format.reader.lark.parse_interactive("", start=START[opened])
    lexer, state = parser.lexer_thread.lexer, recogniser(parser.parser_state)
    for token in lexer.lex(lexing(lexer, text, 0), state):
        feed(state, token)
        yield token


def _itself(way: Way) -> Way:
    return way


def _resume(stumble: Stumble, start: int, new: str) -> tuple[int, State]:
    """The last place before `start` where it is known how the parser stood."""
    # White space in front may go together with what is put in, or with what follows.
    # A word may go on where something is left out.
    last = stumble.tokens[0][0] if stumble.tokens else None
    blank = last is not None and not last.strip()
    cut = last is not None and not new and last.end_pos == start
    if start >= stumble.place and not blank and not cut:
        return stumble.place, stumble.state
    for token, state in stumble.tokens:
        if stumble.way.done <= (token.start_pos or 0) <= start:
            return token.start_pos or 0, state
    return stumble.way.at, stumble.way.state


def _read(lexer: Any, way: Way, is_wrong: Callable[[Token], bool]) -> Stumble | None:
    """Reads on; None at the end."""
    at = lexing(lexer, way.text, way.at)
    state = recogniser(way.state)
    tokens: list[Token] = []
    while True:
        try:
            token = next(lexer.lex(at, state), None)
            if token is not None and is_wrong(token):
                return _stumbled(way, token.start_pos or 0, tokens)
            feed(state, token or Token("$END", ""))
        except UnexpectedInput as failure:
            place = failure.pos_in_stream
            return _stumbled(way, len(way.text) if place is None else place, tokens)
        if token is None:
            return None
        tokens.append(token)


def _stumbled(way: Way, place: int, tokens: Sequence[Token]) -> Stumble:
    """How the parser stood before each of the last tokens."""
    state = recogniser(way.state)
    for token in tokens[:-_LAST]:
        feed(state, token)
    last: list[tuple[Token, State]] = []
    for token in tokens[-_LAST:]:
        last.insert(0, (token, state))
        state = after(state, token)
    return Stumble(way, place, state, tuple(last))
