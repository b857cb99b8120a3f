"""Values that were encoded twice: an object or a list in a string, where none is wanted."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

from ..formats.reader import SPACE
from ..formats.wire_format import WireFormat
from ..parsing.literals import read_literal
from ..parsing.opening import Known
from ..parsing.read import read_turn
from ..tools.toolset import Toolset
from .search import Change, Way, begin, tokens


def decoded(text: str, wire_format: WireFormat, toolset: Toolset, opened: Known) -> Way | None:
    """A turn that its parser follows, with those values as they were meant; None if there are none,
    or if the same text is meant as a string elsewhere."""
    any_arguments = Toolset.of(
        [{"name": name, "parameters": {"additionalProperties": True}} for name in toolset.names]
    )
    calls = read_turn(text, wire_format, any_arguments, opened=opened).calls
    misfits = Counter(
        value
        for call in calls
        for value in toolset.misfits(call.name, call.arguments)
        if isinstance(value, str)
    )
    if not misfits:
        return None
    found = [
        (token, value)
        for token in tokens(wire_format, text, opened)
        if token.type in wire_format.reader.strings
        for value in [_said(token)]
        if value in misfits
    ]
    if Counter(value for _, value in found) != misfits:
        return None
    way = begin(wire_format, text, opened)
    for token, value in found:
        start, end = (place + way.shift for place in (token.start_pos or 0, token.end_pos or 0))
        way = way.changed(Change(start, end, value, "unwrap_double_encoding"), 0, way.state)
    return way


def _said(token: str) -> str:
    """The JSON that a string holds; empty if it holds none."""
    with suppress(ValueError, RecursionError):
        said = read_literal(token, True)
        if said.strip(SPACE)[:1] in ("{", "["):
            json.loads(said)
            return str(said)
    return ""
