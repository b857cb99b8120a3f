"""Calls that are spelled as the chat template does: read without the parser.

Most calls of a healthy model are. They are cut at the fixed texts around names and arguments, and
what is not exactly that is left to the parser, which goes on from there. Both say the same, and are
tested against each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from lark.parsers.lalr_parser_state import ParserState

from ..errors import FormatError
from ..formats.reader import SPACE, TOOL_NAME
from ..formats.render import render
from ..formats.wire_format import WireFormat
from ..tools.toolset import Toolset
from .faults import refused, unknown
from .head import Head
from .parser import TurnParser
from .turn import Call, Fault, Turn

_NAME, _KEY = "sentinel_name", "sentinel_key"
_TRAILING = 16
_TOOL_NAME = re.compile(TOOL_NAME)
_UNSURE = re.compile(r"\d[eE]|\d{64}|[\udb00-\udcff]")
"""In JSON: what a grammar may bound more than JSON does, and markers."""


@dataclass(frozen=True)
class Spelling:
    """How a format spells calls.

    Attributes:
        before, between, after: the fixed texts before a name, between it and the arguments, and
            after them.
        separator: the text between two calls.
        opening, closing: how much of `before` and of `after` the span of a call leaves out.
        trailing: white space may follow.
        states: how the parser stands behind one call, behind two and behind more; empty if it may
            still take what follows as a part of them.
    """

    before: str
    between: str
    after: str
    separator: str
    opening: int
    closing: int
    trailing: bool
    states: tuple[ParserState[Any], ...]


@cache
def spelling(wire_format: WireFormat) -> Spelling | None:
    """How the format spells calls, if it does so alike for each, with JSON as the arguments."""
    if not wire_format.is_json or not wire_format.opener:
        return None
    calls = [{"name": f"{_NAME}{i}", "arguments": {_KEY: i}} for i in range(3)]
    bodies = [json.dumps(call["arguments"]) for call in calls]
    try:
        one, three = render(wire_format, calls[:1]), render(wire_format, calls)
    except FormatError:
        return None
    before, _, rest = one.partition(f"{_NAME}0")
    between, _, after = rest.partition(bodies[0])
    pieces = [f"{before}{_NAME}{i}{between}{body}{after}" for i, body in enumerate(bodies)]
    separator = three[len(pieces[0]) : three.find(pieces[1])]
    if not between or not after or separator.join(pieces) != three or _NAME in between + after:
        return None
    read = _read(one, wire_format)
    trailing = not _read(one + "\n", wire_format).faults
    start, end = read.calls[0].span
    closed = wire_format.closer and after.endswith(wire_format.closer)
    heads = [separator.join(pieces[:count]) for count in (1, 2, 3)] if closed else []
    states = tuple(_state_behind(head, wire_format) for head in heads)
    return Spelling(before, between, after, separator, start, len(one) - end, trailing, states)


def _state_behind(head: str, wire_format: WireFormat) -> ParserState[Any]:
    parser = wire_format.reader.lark.parse_interactive(head, start="start")
    parser.exhaust_lexer()
    return parser.parser_state


def _read(text: str, wire_format: WireFormat) -> Turn:
    tool = {"name": f"{_NAME}0", "parameters": {"properties": {_KEY: {}}}}
    return TurnParser(wire_format, Toolset.of([tool])).read(text)


def read_canonical(text: str, wire_format: WireFormat, toolset: Toolset) -> Head | None:
    """The calls at the head of a turn, as far as they are in the format's own spelling; None if
    there is none."""
    spelled = spelling(wire_format)
    if spelled is None or not text.startswith(spelled.before):
        return None
    calls: list[Call] = []
    faults: list[Fault] = []
    end = count = 0
    for call in _calls(text, spelled, wire_format):
        name, (start, _) = call.name, call.span
        if name not in toolset.names:
            if not _TOOL_NAME.fullmatch(name) or wire_format.reader.reserved.match(name):
                break
            named = start - spelled.opening + len(spelled.before)
            kind, message = unknown(name, toolset, wire_format)
            span = named, named + len(name)
            faults.append(Fault(kind, span, message, "call", wire_format.name))
        elif errors := refused(name, call.arguments, toolset):
            for kind, message in errors:
                faults.append(Fault(kind, call.span, message, "call", wire_format.name))
        else:
            calls.append(call)
        end, count = call.span[1] + spelled.closing, count + 1
    if not count:
        return None
    blank = len(text) - end <= (_TRAILING if spelled.trailing else 0)
    known = min(count, len(spelled.states))
    return Head(
        calls,
        faults,
        end,
        blank and not text[end:].strip(SPACE),
        spelled.states[known - 1] if known else None,
        known,
    )


def _calls(text: str, spelled: Spelling, wire_format: WireFormat) -> Iterator[Call]:
    """One call after the other, up to one that is not as it should be."""
    place = 0
    while text.startswith(spelled.before, place):
        start = place
        named = place + len(spelled.before)
        until = text.find(spelled.between, named)
        if until < 0:
            return
        name, place = text[named:until], until + len(spelled.between)
        try:
            arguments, end = _DECODER.raw_decode(text, place)
            respelled = _ENCODER.encode(arguments)
        except (ValueError, RecursionError):
            return
        written = text[place:end]
        place = end + len(spelled.after)
        if not (
            text.startswith(spelled.after, end)
            and isinstance(arguments, dict)
            and respelled == written
            and not _UNSURE.search(written)
            and not wire_format.spelled.search(written)
        ):
            return
        yield Call(name, arguments, (start + spelled.opening, place - spelled.closing))
        if not text.startswith(spelled.separator, place):
            return
        place += len(spelled.separator)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refused)
_ENCODER = json.JSONEncoder(ensure_ascii=False)
