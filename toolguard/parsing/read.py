"""Reads a finished turn, and classifies what it finds."""

from __future__ import annotations

import re

from ..formats.reader import LEADING_SPACE, SPACE
from ..formats.wire_format import WireFormat
from ..tools.toolset import Toolset
from .canonical import read_canonical
from .events import TurnEnd
from .parser import TurnParser
from .turn import Turn
from .turn_faults import OPENING_ROLE

_MARKS = re.compile(r"[\udb00-\udcff]")


def read_turn(
    text: str,
    wire_format: WireFormat,
    toolset: Toolset,
    *,
    opened: bool = False,
    ended: bool = True,
) -> Turn:
    """What an assistant turn says, and what is wrong with it.

    Args:
        text: the turn without its end token. Control tokens are spelled out, or marked (see
            `toolguard.formats.reader`).
        opened: the prompt had opened the reasoning already.
        ended: the turn was ended by an end token, not by a budget.
    """
    if ended and not opened and wire_format.replies_plainly:
        reply = _plain_reply(text, wire_format, toolset)
        if reply is not None:
            return reply
    if ended and not opened and (turn := read_canonical(text, wire_format, toolset)):
        return turn
    parser = TurnParser(wire_format, toolset, opened=opened)
    parser.feed(text)
    return finished(parser, ended)


def _plain_reply(text: str, wire_format: WireFormat, toolset: Toolset) -> Turn | None:
    """What most turns are, told at a glance: text without a control token or the name of a tool."""
    if any(control in text for control in wire_format.controls) or toolset.any_named(text):
        return None
    if OPENING_ROLE.match(text) or (not text.isascii() and _MARKS.search(text)):
        return None
    said = text.strip(SPACE)
    if not said or text.find(said[0]) > LEADING_SPACE:
        return None
    return Turn(text, said, "", (), False, "healthy_response")


def finished(parser: TurnParser, ended: bool | None = None) -> Turn:
    """The turn of a parser that was fed all of it."""
    end = parser.finish(ended)[-1]
    assert isinstance(end, TurnEnd)
    return end.turn
