"""Reads a finished turn, and classifies what it finds."""

from __future__ import annotations

from ..formats.wire_format import WireFormat
from ..tools.toolset import Toolset
from .events import TurnEnd
from .parser import TurnParser
from .turn import Turn


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
    parser = TurnParser(wire_format, toolset, opened=opened)
    parser.feed(text)
    return finished(parser, ended)


def finished(parser: TurnParser, ended: bool | None = None) -> Turn:
    """The turn of a parser that was fed all of it."""
    end = parser.finish(ended)[-1]
    assert isinstance(end, TurnEnd)
    return end.turn
