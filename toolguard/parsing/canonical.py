"""Turns that spell their calls as the chat template does: read without the parser.

Most turns of a healthy model are. Such a turn is cut at the fixed texts around names and arguments,
and what is not exactly that is left to the parser. Both say the same, and are tested against each
other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import FormatError
from ..formats.reader import SPACE, TOOL_NAME
from ..formats.render import render
from ..formats.wire_format import WireFormat
from ..tools.toolset import Toolset
from .faults import Found, refused, unknown
from .parser import TurnParser
from .turn import Call, Turn

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
    """

    before: str
    between: str
    after: str
    separator: str
    opening: int
    closing: int
    trailing: bool


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
    return Spelling(before, between, after, separator, start, len(one) - end, trailing)


def _read(text: str, wire_format: WireFormat) -> Turn:
    tool = {"name": f"{_NAME}0", "parameters": {"properties": {_KEY: {}}}}
    return TurnParser(wire_format, Toolset.of([tool])).read(text)


def read_canonical(
    text: str, wire_format: WireFormat, toolset: Toolset
) -> tuple[list[Call], list[Found]] | None:
    """The calls of a turn that is nothing but calls in the format's own spelling, and what is wrong
    with the others; None of any other turn."""
    spelled = spelling(wire_format)
    if spelled is None or not text.startswith(spelled.before):
        return None
    body = text.rstrip(SPACE)
    if len(text) - len(body) > (_TRAILING if spelled.trailing else 0):
        return None
    calls: list[Call] = []
    found: list[Found] = []
    for call in _calls(body, spelled, wire_format):
        if call is None:
            return None
        name, arguments, (start, end) = call.name, call.arguments, call.span
        if name not in toolset.names:
            if not _TOOL_NAME.fullmatch(name) or wire_format.reader.reserved.match(name):
                return None
            named = start - spelled.opening + len(spelled.before)
            kind, message = unknown(name, toolset)
            found.append(Found(kind, named, named + len(name), message, "call"))
        elif errors := refused(name, arguments, toolset):
            found += [Found(kind, start, end, message, "call") for kind, message in errors]
        else:
            calls.append(call)
    return calls, found


def _calls(text: str, spelled: Spelling, wire_format: WireFormat) -> Iterator[Call | None]:
    """One call after the other; None where one is not as it should be."""
    place = 0
    while True:
        start = place
        named = place + len(spelled.before)
        until = text.find(spelled.between, named)
        if not text.startswith(spelled.before, place) or until < 0:
            yield None
            return
        name, place = text[named:until], until + len(spelled.between)
        try:
            arguments, end = _DECODER.raw_decode(text, place)
            respelled = _ENCODER.encode(arguments)
        except (ValueError, RecursionError):
            yield None
            return
        written = text[place:end]
        sound = (
            text.startswith(spelled.after, end)
            and isinstance(arguments, dict)
            and respelled == written
            and not _UNSURE.search(written)
            and not wire_format.spelled.search(written)
        )
        place = end + len(spelled.after)
        span = start + spelled.opening, place - spelled.closing
        yield Call(name, arguments, span) if sound else None
        if not sound or place == len(text):
            return
        if not text.startswith(spelled.separator, place):
            yield None
            return
        place += len(spelled.separator)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refused)
_ENCODER = json.JSONEncoder(ensure_ascii=False)
