"""Reads a turn while it is written, through its format's own parser.

Text becomes tokens of the grammar, and a token is *certain* when no further text can change it:
when the one after it has begun, or when it is a control token that was sampled as one id. Only what
is certain reaches the parser, so that any cut of a turn into chunks gives the same calls.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast

from lark import Token, Tree, UnexpectedInput, UnexpectedToken
from lark.lexer import LexerState
from lark.parsers.lalr_parser_state import ParserState

from ..errors import RequestError
from ..formats.nodes import Pattern
from ..formats.reader import (
    CALLS,
    MARKED,
    SPACE,
    STRAY,
    begun_length,
    control_pattern,
    fixed_text,
    lexing,
    marker,
    mention,
    unmark,
    words,
)
from ..formats.wire_format import WireFormat
from ..grammar.dialects import ESCAPE
from ..grammar.engine import shortest_suffix
from ..grammar.mask_grammar import terminal_grammar
from ..tools.toolset import Toolset
from .ahead import Ahead
from .diagnosis import diagnose, is_calling, nothing_after, turn_state
from .ending import held_from, without_end
from .events import (
    ArgumentsDelta,
    CallEnd,
    CallName,
    CallStart,
    Event,
    FaultFound,
    ReasoningDelta,
    TextDelta,
    TurnEnd,
)
from .faults import Place, fused, line, refused, unknown
from .head import Head
from .opening import START, Known, Opened, longest, opened_by, shown
from .quoted import quoted
from .said import may_say_more
from .thought_words import ThoughtWords
from .turn import Call, Fault, FaultKind, Turn, Where
from .turn_faults import faults_of_turn
from .value_words import TEXTS, is_word
from .values import TookInError, named_value, read_arguments

_PROSE: Mapping[str, type[TextDelta | ReasoningDelta]] = {
    "FREE": TextDelta,
    "THOUGHT": ReasoningDelta,
}
_REASONING = ("reasoning", "thoughts")
_PARTS = (*CALLS, "name_", "argument", "arguments_")
_Nodes: TypeAlias = "Sequence[Tree[Token] | Token]"
UNTAGGED = "a call without its control tokens"
_STRING = re.compile(rf'(?:[^"\\\x00-\x1f\udc00-\udcff]+|\\(?:["\\/bfnrt]|{ESCAPE}))*')
"""What a string of JSON holds."""
_QUOTED = {
    quote: re.compile(rf"(?:[^\\{quote}{MARKED.pattern[1:-1]}]+|\\[^{MARKED.pattern[1:-1]}])*")
    for quote in "\"'"
}
"""What stands between quotes, escapes and all: a text that goes on is matched from where it was."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """What token ids say.

    Attributes:
        marks: the marker of each control token that is one id, and of each special token.
        bytes_of: the bytes that other ids spell.
        end_ids: the ids that end a turn.
    """

    marks: Mapping[int, str]
    bytes_of: Callable[[Sequence[int]], bytes]
    end_ids: Sequence[int]


class TurnParser:
    """Reads one assistant turn as it comes, in text or in token ids.

    `feed` and `finish` return what has become certain. Events whose deltas are put together, calls
    and turn are the same whatever the chunks are. Only where the reasoning turns out to end behind
    calls that were told (`call_in_reasoning`), the turn has none of them.

    Args:
        wire_format: how the turn writes calls.
        toolset: the tools offered.
        opened: what the prompt had opened already: the reasoning (true), a reply (`reply`), or
            nothing (false). By default (`auto`) the turn's first control token shows it, and text
            before that is told when it has come: say what you know.
        spelling: what token ids say; `Guard.parser` gives it. Without it only text can be fed.
        mentions: the places of ids that are, or spell, a control token that is a word of prose.
        own: how many of its calls the model said, where a budget ended the turn (see `said`).
    """

    def __init__(
        self,
        wire_format: WireFormat,
        toolset: Toolset,
        *,
        opened: Opened = "auto",
        spelling: Spelling | None = None,
        mentions: frozenset[int] = frozenset(),
        own: int | None = None,
    ) -> None:
        self._format = wire_format
        self._toolset = toolset
        self._spelling = spelling
        self._mentions = mentions
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._ended: bool | None = None  # whether an end token was among the ids; none were fed yet
        self._source = ""
        self._end = ""  # of the text that was fed: an end token, or what may become one
        self._thought = ThoughtWords(wire_format, opened)
        self._quoting = True  # control tokens in quotes are words: no call has begun in the text
        opened = opened_by(None, wire_format, opened)
        self._is_opening = opened == "auto"  # what the prompt opened is yet to be seen
        self._sought = 0  # no control token begins before
        self._begin(False if opened == "auto" else opened)
        self._at = 0  # up to here the tokens are certain
        self._last: Token | None = None  # the last of them
        self._prose_begun: Token | None = None  # prose that the end of the source cuts off
        self._awaited: re.Pattern[str] | None = None  # without it nothing more becomes certain
        # A string whose end is awaited: its quotation mark, and up to where it was looked for.
        self._quote, self._unquoted = "", 0
        self._string = (0, 0)  # a string of JSON, and up to where it was found to be one
        self._overlap = max(map(len, wire_format.controls))
        self._broken = False
        self._value: _OpenValue | None = None
        self._words: list[tuple[int, str, str]] = []  # control tokens in values: place, text, mark
        self._said = 0  # up to here prose was told
        self._measured = (0, 0)  # a place in the source, and how long it is up to there, unmarked
        self._prose = {kind: _Prose() for kind in _PROSE}
        self._may_be_barred = True
        self._told = 0  # how many calls are over
        self._own = own
        self._cut: Call | None = None  # the one that the budget ended
        self._begun = _Begun()
        self._calls: list[Call] = []
        self._faults: list[Fault] = []
        self._events: list[Event] = []

    def _begin(self, opened: Known) -> None:
        parser = self._format.reader.lark.parse_interactive("", start=START[opened])
        self._lexer = parser.lexer_thread.lexer
        self._state: ParserState[Any] = parser.parser_state

    def _settle(self, final: bool) -> None:
        """Finds out what the prompt had opened, if the source shows it by now."""
        known = shown(self._source, self._format, self._sought, final)
        self._sought = max(0, len(self._source) - self._overlap - longest(self._format))
        if known is not None:
            self._is_opening = False
            self._begin(known)

    def feed(self, chunk: str | Sequence[int]) -> tuple[Event, ...]:
        """Takes more of the turn. Token ids after one that ends it are ignored.

        Args:
            chunk: text, control tokens spelled out or marked (see `toolguard.formats.reader`); or
                token ids. An end token at the very end of the text ends the turn.

        Raises:
            RequestError: ids, and the parser does not know what they say.
        """
        size = len(self._source)
        more = self._fed(chunk) if isinstance(chunk, str) else self._text_of(chunk)
        # Python adds to a string in place, without a copy of it, where a local name alone holds it.
        source, self._source = self._source, ""
        source += more
        self._source = source
        if self._may_advance(size):
            self._advance()
        if not self._broken:
            self._tell_unfinished()
        return self._taken()

    def _may_advance(self, size: int) -> bool:
        """Whether what has come since the source had that size makes anything certain."""
        if self._quote:
            found = _QUOTED[self._quote].match(self._source, self._unquoted)
            self._unquoted = found.end() if found else self._unquoted
            return self._source[self._unquoted : self._unquoted + 2] not in ("", "\\")
        start = max(0, size - self._overlap)
        return self._awaited is None or self._awaited.search(self._source, start) is not None

    def read(self, text: str, ended: bool = True, head: Head | None = None) -> Turn:
        """All of a turn at once, to a parser that was fed nothing; its head may be known."""
        if MARKED.search(text):
            self.feed(text)  # what is certain at a marker is told before the end is known
        else:
            text = self._thought.feed(text, final=True)
            self._source = quoted("", text, self._format, True, self._toolset.names).text
            if head is not None and head.state is not None:
                self._is_opening = False  # calls stand before all else
                self._go_behind(head, head.state)
        end = self.finish(ended)[-1]
        assert isinstance(end, TurnEnd)
        return end.turn

    def finish(self, ended: bool | None = None) -> tuple[Event, ...]:
        """Reads what is left; the last event holds the turn.

        Args:
            ended: the turn was ended by an end token, not by a budget. By default text was, and
                ids were if there was an end token among them.
        """
        self._source += self._utf8.decode(b"", final=True)
        self._source += self._fed("", final=True)
        if without_end(self._end, self._format):
            self._source += self._end
        elif self._end:
            ended = True
        ended = self._ended is not False if ended is None else ended
        if not ended:
            self._own = self._said_by_now()
        self._advance(final=True)
        self._close(ended)
        spelled = unmark(self._source, self._format.controls)
        self._withdraw(spelled)
        whole = faults_of_turn(
            spelled,
            self._prose["FREE"].told,
            self._calls,
            tuple(self._faults),
            self._format,
            self._toolset,
            calls_alone,
            thought=self._thought.found,
            cut=self._own is not None,
        )
        for kind, *span, message, where in whole:
            self._tell_fault(kind, (span[0], span[1]), message, where)
        turn = Turn(
            raw=spelled,
            text=self._prose["FREE"].told,
            reasoning=self._prose["THOUGHT"].told,
            calls=tuple(self._calls),
            calling=self._cut is not None
            or is_calling(self._source, self._calls, self._faults, self._format),
            state=turn_state(self._source, self._calls, self._faults, self._format),
            faults=tuple(self._faults),
            cut=self._cut,
            ids=tuple(self._ids),
        )
        self._events.append(TurnEnd(turn))
        return self._taken()

    def _withdraw(self, spelled: str) -> None:
        """Calls behind which the reasoning ends were only thought of."""
        opening, closing = map(fixed_text, self._format.reasoning)
        if not (self._calls and self._broken and self._format.ends_reasoning_only):
            return
        end = self._calls[-1].span[1]
        closed = spelled.find(closing, end)
        if closed < 0 or opening in spelled[end:closed]:
            return
        self._calls.clear()
        span = closed, closed + len(closing)
        message = "the reasoning ends here: the calls before were only thought of"
        self._tell_fault("call_in_reasoning", span, message, "turn")

    def _go_behind(self, head: Head, state: ParserState[Any]) -> None:
        """Starts behind the head, if the token there shows the parser that it is over."""
        self._at = head.end
        try:
            Ahead(state).after(next(self._lexer.lex(self._lexing(), state)))
        except (UnexpectedInput, StopIteration):
            self._at = 0
            return
        self._state = state.copy(deepcopy_values=False)
        # A parser changes the trees on its stack when it puts them into others.
        self._state.value_stack[:] = [
            Tree(node.data, [*node.children]) if isinstance(node, Tree) else node
            for node in self._state.value_stack
        ]
        self._told = head.known
        self._calls += head.calls
        self._faults += head.faults

    def is_open(self) -> bool:
        """Whether more arguments may come in the call that is being written."""
        self._source, self._end = self._source + self._end, ""
        self._advance(final=True)
        return self._begun.started and self._begun.body.end is None

    def said(self) -> int:
        """How many calls are said in full: all that may come of the last of them is structure.

        Nothing can be fed any more.
        """
        self._source, self._end = self._source + self._end, ""
        return self._said_by_now()

    def _said_by_now(self) -> int:
        if self._is_opening:
            self._settle(final=True)
        self._lex_to_end()
        self._tell_calls()
        named = self._begun.body.name is not None and not self._broken
        return self._told + (named and not may_say_more(self._state))

    def _taken(self) -> tuple[Event, ...]:
        events, self._events = self._events, []
        return tuple(events)

    def _fed(self, text: str, final: bool = False) -> str:
        """What of the text fed is no end of the turn, as far as is known."""
        text, rest = self._end + self._thought.feed(text, final), ""
        if self._quoting:
            text, rest, self._quoting = quoted(
                self._source, text, self._format, False, self._toolset.names
            )
        held = held_from(text, self._format)
        self._end = text[held:] + rest
        return text[:held]

    def _text_of(self, ids: Sequence[int]) -> str:
        if self._spelling is None:
            raise RequestError(
                "this parser does not know what token ids say: feed text, or take Guard.parser()"
            )
        self._ended = self._ended or False
        parts: list[str] = []
        for token in map(int, ids):
            if self._ended:
                break
            self._ids.append(token)
            mark = self._spelling.marks.get(token)
            in_prose = len(self._ids) - 1 in self._mentions
            if token in self._spelling.end_ids:
                self._ended = True
            elif mark is not None:
                parts.append(self._utf8.decode(b"", final=True))
                if in_prose:
                    parts.append(mention(mark))
                    continue
                if mark in self._sayable:
                    self._source += "".join(parts)
                    parts = [self._word_or(mark)]
                else:
                    parts.append(mark)
            else:
                said = self._utf8.decode(self._spelling.bytes_of([token]))
                parts.append(words(said) if in_prose else said)
        return "".join(parts)

    @cached_property
    def _sayable(self) -> Mapping[str, str]:
        """The control tokens that the text of a value may name, by their markers: some of them only
        beside others (see `is_word`)."""
        named = self._format.sayable | self._format.framing
        return {marker(self._format.controls.index(text)): text for text in named}

    def says(self, token: int) -> bool:
        """Whether a control token would be a word of a value if it came next; after ids alone."""
        assert self._spelling is not None
        mark = self._spelling.marks.get(token, STRAY)
        return self._is_word(mark) and token not in self._spelling.end_ids

    def _is_word(self, mark: str) -> bool:
        if mark not in self._sayable or self._broken:
            return False
        self._advance()
        if self._value is None:
            return False
        content, said = self._source[self._value.start :], self._sayable[mark]
        return said not in self._value.stops and is_word(content, said, self._format.sayable)

    def _word_or(self, mark: str) -> str:
        """What stands for a control token: what it spells where it is a word of a value."""
        if not self._is_word(mark):
            return mark
        self._words.append((len(self._source), self._sayable[mark], mark))
        return self._sayable[mark]

    def _unsay(self, position: int) -> None:
        """The value that is not over never comes to its end: no control token in it is a word."""
        while self._words and self._words[-1][0] >= max(self._at, position):
            place, said, mark = self._words.pop()
            self._source = self._source[:place] + mark + self._source[place + len(said) :]

    # Tokens: what is certain goes to the parser

    def _advance(self, final: bool = False) -> None:
        if self._is_opening:
            self._settle(final)
            if self._is_opening:
                return
        pending, place, expected = self._lex_to_end() if final else self._lex()
        stopped = place is not None and MARKED.search(self._source, place) is not None
        if pending is not None and (stopped or self._begins_string(place)):
            self._commit(pending)
            pending = None
        if place is not None and (final or stopped):
            self._break(place, expected)
        elif final:
            self._commit(Token("$END", ""))
        self._tell_calls()
        if not final:
            self._await(pending, place, expected)

    def _lex(self) -> tuple[Token | None, int | None, Collection[str]]:
        """Feeds the parser what is certain.

        Returns:
            The last token if it is not certain; where what follows is no token, or none yet; and
            which might. No token goes on beyond a marker: in front of one all is certain.
        """
        place = self._lexing()
        pending: Token | None = None
        ahead = Ahead(self._state)
        while not self._broken:
            try:
                token = next(self._lexer.lex(place, cast("ParserState[Any]", ahead)), None)
                if token is None:
                    break
                following = ahead.after(token)
            except UnexpectedInput as failure:
                return pending, failure.pos_in_stream, ahead.expected
            if pending is not None:
                self._commit(pending)
                following = Ahead(self._state).after(token)
            pending, ahead = token, following
            if MARKED.fullmatch(token):
                self._commit(token)
                pending, ahead = None, Ahead(self._state)
        return pending, None, ()

    def _lex_to_end(self) -> tuple[None, int | None, Collection[str]]:
        """The same where nothing follows the source, so that all of it is certain."""
        if self._broken:
            return None, None, ()
        try:
            for token in self._lexer.lex(self._lexing(), self._state):
                Ahead(self._state).after(token)  # a parser that refuses a token has moved already
                self._commit(token)
        except UnexpectedInput as failure:
            return None, failure.pos_in_stream, Ahead(self._state).expected
        return None, None, ()

    def _lexing(self) -> LexerState:
        return lexing(self._lexer, self._source, self._at)

    def _await(self, pending: Token | None, place: int | None, expected: Iterable[str]) -> None:
        """Finds what has to come before it is worth while to look again."""
        self._prose_begun = self._awaited = None
        self._quote = ""
        self._value = self._open_value(pending, place, expected)
        values = self._format.reader.values
        awaited: list[str] = []
        if place is not None:
            if self._source[place] in _QUOTED:
                self._quote, self._unquoted = self._source[place], place + 1
                return
            stops = [values[terminal].stop for terminal in expected if terminal in values]
            awaited = [re.escape(stop) for stop in stops]
        elif pending is not None and pending.type in values:
            awaited = [re.escape(values[pending.type].stop)]
        elif pending is not None and self._is_prose(pending):
            self._prose_begun = pending
            awaited = [control_pattern(self._format.controls)]
        if awaited:
            self._awaited = re.compile("|".join([*awaited, MARKED.pattern]))

    def _open_value(
        self, pending: Token | None, place: int | None, expected: Iterable[str]
    ) -> _OpenValue | None:
        """The text of a value that is not over, if there the source ends."""
        reader = self._format.reader
        if place is None:
            start = 0 if pending is None else pending.start_pos or 0
            expected = () if pending is None else (pending.type,)
        else:
            start, expected = place, (*expected,)
        found = [reader.values[terminal] for terminal in expected if terminal in reader.values]
        texts = [value.stop for value in found if value.slot in TEXTS]
        if texts:
            return _OpenValue(start, texts)
        if place is not None and self._source[place] in "\"'" and reader.numbers & {*expected}:
            return _OpenValue(place + 1, ())
        return None

    def _begins_string(self, place: int | None) -> bool:
        """Whether a string of JSON begins there that is not closed yet."""
        if place is None or not self._source.startswith('"', place):
            return False
        self._tell_calls()
        return self._begun.body.is_open

    def _commit(self, token: Token) -> None:
        end = token.type == "$END"
        if token.type in _PROSE:
            self._tell_calls()  # those before it come first
        try:
            root = self._state.feed_token(token, end)
        except UnexpectedToken:
            place = len(self._source) if end else token.start_pos or 0
            self._break(place, Ahead(self._state).expected)
            return
        if end:
            self._state.value_stack[:] = [root]
            return
        assert token.start_pos is not None
        assert token.end_pos is not None
        self._at, self._last = token.end_pos, token
        if token.type in _PROSE:
            self._say(token.type, token.start_pos, token.end_pos)

    def _break(self, position: int, expected: Collection[str]) -> None:
        """The parser cannot follow any more."""
        if self._broken:
            return
        self._broken = True
        self._unsay(position)
        self._complete(position)
        self._tell_calls()
        self._tell_string()
        body, last = self._begun.body, self._last
        starts = [] if body.start is None else [body.start]
        if body.name is not None:
            starts.append(body.name.start_pos or 0)
        # A name that nothing has followed yet is no part of the tree.
        bare = last is not None and last.type == self._format.reader.tool and body.name is None
        if last is not None and bare:
            starts.append(last.start_pos or 0)
            if fused(str(last), self._toolset):
                self._tell_name(last)
        place = Place(
            source=self._source,
            position=position,
            body=min(starts, default=None),
            named=body.name is not None or bare,
            ends_in_name=bare and last is not None and last.end_pos == position,
            expected=expected,
            wire_format=self._format,
            toolset=self._toolset,
        )
        found = diagnose(place, self._last, self._told > 0)
        self._found(*found)
        if found.kind == "text_after_call" and not self._begun.started:
            self._say_behind(position)

    def _complete(self, position: int) -> None:
        """Where the turn might have ended behind a control token, or where one stands, the call
        before it is complete, whatever follows; the parser would wait for a token that is right."""
        end = Token("$END", "")
        controlled = self._last is not None and self._last.type.startswith("CONTROL_")
        if controlled or self._format.any_control.match(self._source, position):
            with suppress(UnexpectedToken):
                self._state.value_stack[:] = [self._state.feed_token(end, True)]

    # Events

    def _tell_unfinished(self) -> None:
        """What can be said of a token that is not complete."""
        prose = self._prose_begun
        if prose is not None:
            held = begun_length(self._source, self._format.controls)
            self._say(prose.type, prose.start_pos or 0, len(self._source) - held)
        else:
            self._tell_string()

    def _tell_string(self) -> None:
        """A string of JSON that is not closed, as far as it is one."""
        start = self._at
        if not (self._begun.body.is_open and self._source.startswith('"', start)):
            return
        words = (place for place, *_ in self._words if place >= start)
        end = min(words, default=len(self._source))  # they may turn out to be none
        known = self._string[1] if self._string[0] == start else start + 1
        found = _STRING.match(self._source, known, end)
        self._string = start, found.end() if found else known
        self._tell_body(self._begun.body, self._string[1])

    def _is_prose(self, token: Token) -> bool:
        """Whether a token is prose, and cannot turn out to be how a call begins where no token
        opens one."""
        if token.type not in _PROSE or not token.strip(SPACE):
            return False
        barred = self._format.reader.barred
        if barred is not None and token.type == "FREE" and self._may_be_barred:
            begun = self._source[token.start_pos :].encode("utf-8", "replace")
            grammar = terminal_grammar(Pattern(barred), ())
            self._may_be_barred = shortest_suffix(grammar, begun) is not None
            return not self._may_be_barred
        return True

    def _say(self, kind: str, start: int, end: int) -> None:
        prose = self._prose[kind]
        if start >= self._said and (kind == "THOUGHT" or not self._format.replies_plainly):
            prose.fresh = True
        said = unmark(self._source[max(start, self._said) : end], self._format.controls)
        text = prose.more(said)
        self._said = max(self._said, end)
        if text:
            self._events.append(_PROSE[kind](text))

    def _say_behind(self, position: int) -> None:
        """Text behind a call that the format has no place for: text all the same."""
        control = self._format.any_control.search(self._source, position)
        end = len(self._source) if control is None else control.start()
        self._say("FREE", len(self._source[:position].rstrip(SPACE)), end)

    def _tell_calls(self) -> None:
        """What the parser knows of calls by now."""
        complete, body = _progress(self._state.value_stack)
        for tree in complete[self._told :]:
            whole = _body(_parts(tree.children))
            self._tell_body(whole)
            self._end_call(tree, whole)
            self._told += 1
            self._begun = _Begun()
        self._begun.body = body
        self._tell_body(body)

    def _tell_body(self, body: _Body, until: int | None = None) -> None:
        """The start, the name and the arguments of a call, as far as they were not told, in the
        order of the source."""
        begun, index = self._begun, self._told
        if body.name is None and body.start is None:
            return
        if not begun.started:
            begun.started = True
            self._events.append(CallStart(index))
        if body.leads:
            self._write_source(body, until)
        if body.name is not None and begun.name is None:
            self._tell_name(body.name)
        if begun.muted:
            return
        if body.start is not None:
            self._write_source(body, until)
        elif begun.name is not None:
            tool = self._toolset[begun.name]
            for tree in body.arguments[len(begun.arguments) :]:
                try:
                    pair = named_value(tree, self._source, self._format.reader, tool)
                except ValueError:
                    begun.muted = True  # the end of the call tells what is wrong
                    return
                self._write(f"{', ' if begun.arguments else '{'}{_object([pair])[1:-1]}")
                begun.arguments.append(pair)

    def _tell_name(self, name: Token) -> None:
        self._begun.name = str(name)
        if self._begun.name in self._toolset.names:
            self._events.append(CallName(self._told, self._begun.name))
            return
        self._begun.muted = True
        start = name.start_pos or 0
        kind, message = unknown(self._begun.name, self._toolset, self._format)
        self._found(kind, start, start + len(name), message, "call")

    def _write_source(self, body: _Body, until: int | None) -> None:
        """Tells the rest of arguments that are told as they are written."""
        start = (body.start or 0) + self._begun.written
        self._write(self._source[start : until or body.end or self._at])

    def _write(self, more: str) -> None:
        """Tells more of the arguments' text."""
        if more:
            self._begun.written += len(more)
            last = self._events[-1] if self._events else None
            if isinstance(last, ArgumentsDelta) and last.index == self._told:
                more = last.text + more
                self._events.pop()
            self._events.append(ArgumentsDelta(self._told, more))

    def _end_call(self, tree: Tree[Token], body: _Body) -> None:
        """A call that is complete: sound, or at fault."""
        name = self._begun.name
        if name is None or name not in self._toolset.names:
            return
        start, end = tree.meta.start_pos, tree.meta.end_pos
        others = {str(node.children[0]) for node in tree.find_data("name_")} - {name}
        if others:
            message = f"the call is to {name!r} and to {others.pop()!r}"
            self._found("malformed_call", start, end, message, "call")
            return
        tool = self._toolset[name]
        try:
            arguments = read_arguments(tree, self._source, self._format.reader, tool)
        except TookInError as error:
            self._found("dropped_tag", start, end, str(error), "call")
            return
        except ValueError as error:
            message = f"the arguments cannot be read: {line(error)}"
            self._found("malformed_call", start, end, message, "call")
            return
        errors = refused(name, arguments, self._toolset)
        for kind, message in errors:
            self._found(kind, start, end, message, "call")
        if errors:
            return
        call = Call(name, arguments, self._span(start, end))
        if self._own is not None and self._told >= self._own:
            self._cut = replace(call, cut=True)
        else:
            if body.start is None:
                whole = _object(self._begun.arguments or arguments.items())
                self._write(whole[self._begun.written :])
            self._calls.append(call)
            self._events.append(CallEnd(self._told, call))

    def _close(self, ended: bool) -> None:
        """The faults of a turn as a whole."""
        size = len(self._source)
        text = self._prose["FREE"].told
        if not (self._broken or self._calls or self._cut or self._faults or text):
            message = nothing_after(self._source, self._format)
            self._found("empty_turn", 0, size, message, "turn")
        if self._cut is not None:
            message = f"the budget, not the model, ended the call to {self._cut.name!r}"
            self._tell_fault("unfinished_turn", self._cut.span, message, "turn")
        elif not ended:
            message = "the budget ran out before the turn's end"
            self._found("unfinished_turn", size, size, message, "turn")
        if not (self._calls or self._faults) and is_untagged(text, self._format, self._toolset):
            self._found("untagged_call", 0, size, UNTAGGED, "around")

    def _found(self, kind: FaultKind, start: int, end: int, message: str, where: Where) -> None:
        self._tell_fault(kind, self._span(start, end), message, where)

    def _tell_fault(
        self, kind: FaultKind, span: tuple[int, int], message: str, where: Where
    ) -> None:
        fault = Fault(kind, span, message, where, self._format.name)
        self._faults.append(fault)
        self._events.append(FaultFound(fault))

    def _span(self, start: int, end: int) -> tuple[int, int]:
        """A span of the source as a span of the unmarked text."""
        return self._unmarked_size(start), self._unmarked_size(end)

    def _unmarked_size(self, place: int) -> int:
        """How long the source is up to there, unmarked; counted on from the last such place."""
        at, size = self._measured if self._measured[0] <= place else (0, 0)
        size += len(unmark(self._source[at:place], self._format.controls))
        self._measured = place, size
        return size


class _OpenValue(NamedTuple):
    """The text of a value that is not over: where it begins, and what would end it."""

    start: int
    stops: Sequence[str]


@dataclass(slots=True)
class _Prose:
    """Prose without the white space around it; a line end stands between that of two messages,
    which formats have whose replies are not plain text."""

    told: str = ""
    space: str = ""
    fresh: bool = True  # nothing of this message was told

    def more(self, text: str) -> str:
        """What can be told of it: not the white space that may turn out to be its end."""
        text = text.lstrip(SPACE) if self.fresh else self.space + text
        kept = text.rstrip(SPACE)
        self.space = text[len(kept) :]
        if kept and self.fresh:
            self.fresh = False
            kept = f"\n{kept}" if self.told else kept
        self.told += kept
        return kept


@dataclass(slots=True)
class _Body:
    """What the parser has of a call: its name, and its arguments, one by one or as one object."""

    name: Token | None = None
    arguments: list[Tree[Token]] = field(default_factory=list)
    start: int | None = None
    end: int | None = None

    @property
    def is_open(self) -> bool:
        """Inside its arguments, one object."""
        return self.start is not None and self.end is None

    @property
    def leads(self) -> bool:
        """Its arguments, one object, stand before its name."""
        named = None if self.name is None else self.name.start_pos
        return self.start is not None and (named is None or self.start < named)


@dataclass(slots=True)
class _Begun:
    """What was told of the call that is being written."""

    body: _Body = field(default_factory=_Body)
    started: bool = False
    name: str | None = None
    arguments: list[tuple[str, Any]] = field(default_factory=list)
    written: int = 0
    muted: bool = False


def is_untagged(text: str, wire_format: WireFormat, toolset: Toolset) -> bool:
    """Whether prose is the bare body of a call to an offered tool."""
    if not (toolset.any_named(text) and wire_format.body.match(text)):
        return False
    source = f"{wire_format.opener}{text}{wire_format.closer}"
    begun = wire_format.reader.lark.parse_interactive("", start="start")
    lexer, state = begun.lexer_thread.lexer, recogniser(begun.parser_state)
    try:
        for token in lexer.lex(lexing(lexer, source, 0), state):
            if token.type == wire_format.reader.tool and token not in toolset.names:
                return False
            feed(state, token)
        feed(state, Token("$END", ""))
    except UnexpectedInput:
        return False
    return True


def calls_alone(text: str, wire_format: WireFormat, toolset: Toolset) -> tuple[Sequence[Call], str]:
    """See `turn_faults.Read`."""
    parser = _trial(text, wire_format, toolset)
    return () if parser._faults else parser._calls, parser._prose["FREE"].told


def _trial(text: str, wire_format: WireFormat, toolset: Toolset) -> TurnParser:
    """A parser that was fed all of a text, of which nobody is told."""
    parser = TurnParser(wire_format, toolset)
    parser._source = without_end(text, wire_format)
    parser._advance(final=True)
    return parser


def after(state: ParserState[Any], token: Token) -> ParserState[Any]:
    """A parser's state after a token, without the tree."""
    following = recogniser(state)
    feed(following, token)
    return following


def recogniser(state: ParserState[Any]) -> ParserState[Any]:
    """A copy of a parser's state that builds no tree."""
    copied = state.copy(deepcopy_values=False)
    copied.parse_conf = copy(state.parse_conf)
    copied.parse_conf.callbacks = {}
    return copied


def feed(state: ParserState[Any], token: Token) -> None:
    state.feed_token(token, token.type == "$END")


def _object(pairs: Iterable[tuple[str, Any]]) -> str:
    """A JSON object as text, keys as often as they come."""
    texts = (json.dumps({key: value}, ensure_ascii=False)[1:-1] for key, value in pairs)
    return "{" + ", ".join(texts) + "}"


def _progress(stack: _Nodes) -> tuple[list[Tree[Token]], _Body]:
    """The complete calls on a parser's stack, and the one that is being written."""
    complete: list[Tree[Token]] = []
    rest: list[Tree[Token] | Token] = []
    for part in _parts(stack):
        if isinstance(part, Tree) and part.data in CALLS:
            complete.append(part)
            rest = []
        else:
            rest.append(part)
    return complete, _body(rest)


def _body(parts: Iterable[Tree[Token] | Token]) -> _Body:
    """What these parts say of one call."""
    body = _Body()
    for part in parts:
        if isinstance(part, Token):
            body.start = part.start_pos
        elif part.data == "name_" and body.name is None:
            (body.name,) = part.scan_values(lambda node: isinstance(node, Token))
        elif part.data == "argument":
            body.arguments.append(part)
        elif part.data == "arguments_":
            body.start, body.end = part.meta.start_pos, part.meta.end_pos
    return body


def _parts(nodes: _Nodes) -> Iterator[Tree[Token] | Token]:
    """Calls, names and arguments, in order; of a JSON object that is not closed, its bracket."""
    for place, node in enumerate(nodes):
        if isinstance(node, Token):
            continue
        if node.data == "begin_":
            yield nodes[place + 1]
            return
        if node.data in _PARTS:
            yield node
        elif node.data not in _REASONING:
            yield from _parts(node.children)
