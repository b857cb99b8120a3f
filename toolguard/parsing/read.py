"""Reads a finished turn, and classifies what it finds.

Most turns need no parser: text without a control token, turns that say nothing at all, calls that
are spelled as the chat template does (`canonical`). Each of these short cuts says what the parser
would say; they are tested against it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..formats.reader import LEADING_SPACE, SPACE
from ..formats.wire_format import WireFormat
from ..tools.toolset import Toolset
from .canonical import read_canonical
from .diagnosis import is_calling, turn_state
from .ending import without_end
from .events import TurnEnd
from .faults import Found
from .opening import Opened, opened_by, shown
from .parser import UNTAGGED, TurnParser, calls_alone, is_untagged
from .turn import Call, Fault, Turn
from .turn_faults import OPENING_ROLE, faults_of_turn, goes_round

_MARKS = re.compile(r"[\udb00-\udcff]")
_BLANK = 64  # characters


def read_turn(
    text: str,
    wire_format: WireFormat,
    toolset: Toolset,
    *,
    opened: Opened = "auto",
    prompt: str | None = None,
    ended: bool = True,
) -> Turn:
    """What an assistant turn says, and what is wrong with it.

    Args:
        text: the turn; an end token at its very end is not a part of it. Control tokens are spelled
            out, or marked (see `toolguard.formats.reader`).
        opened: what the prompt had opened already: the reasoning (true), a reply (`reply`), or
            nothing (false). By default (`auto`) the prompt says so, or else the turn: text that is
            closed as reasoning was opened by the prompt.
        prompt: the prompt, or its end.
        ended: the turn was ended by an end token, not by a budget.

    Raises:
        RequestError: `opened` is none of these, or no prompt opens a reply in the format.
    """
    bare = without_end(text, wire_format)
    if bare != text:
        text, ended = bare, True
    head = None
    known = opened_by(prompt, wire_format, opened)
    if known == "auto":
        known = shown(text, wire_format) or False
    if ended and not known:
        turn = _at_a_glance(text, wire_format, toolset)
        if turn is not None:
            return turn
        head = read_canonical(text, wire_format, toolset)
        if head is not None and head.whole:
            return _judged(text, "", head.calls, head.faults, wire_format, toolset)
    return TurnParser(wire_format, toolset, opened=known).read(text, ended, head)


def finished(parser: TurnParser, ended: bool | None = None) -> Turn:
    """The turn of a parser that was fed all of it."""
    end = parser.finish(ended)[-1]
    assert isinstance(end, TurnEnd)
    return end.turn


def _at_a_glance(text: str, wire_format: WireFormat, toolset: Toolset) -> Turn | None:
    if wire_format.replies_plainly:
        reply = _plain_reply(text, wire_format, toolset)
        if reply is not None:
            return reply
    if len(text) <= _BLANK and wire_format.blank.fullmatch(text) and not toolset.any_named(text):
        return _said_nothing(text, wire_format)
    return None


def _plain_reply(text: str, wire_format: WireFormat, toolset: Toolset) -> Turn | None:
    """Text without a control token."""
    if wire_format.spelled.search(text):
        return None
    said = text.strip(SPACE)
    if not said or text.find(said[0]) > LEADING_SPACE:
        return None
    if not text.isascii() and _MARKS.search(text):
        return None
    if not (toolset.any_named(text) or OPENING_ROLE.match(text) or goes_round(text)):
        return Turn(text, said, "", (), False, "healthy_response")
    untagged = Found("untagged_call", 0, len(text), UNTAGGED, "around").told(wire_format)
    faults = [untagged] if is_untagged(said, wire_format, toolset) else []
    return _judged(text, said, (), faults, wire_format, toolset)


@lru_cache(maxsize=256)
def _said_nothing(text: str, wire_format: WireFormat) -> Turn:
    """A turn of control tokens and white space, which says the same whatever the tools are: what a
    collapsed model writes time and again."""
    return TurnParser(wire_format, Toolset(())).read(text)


def _judged(
    text: str,
    said: str,
    calls: Sequence[Call],
    faults: Sequence[Fault],
    wire_format: WireFormat,
    toolset: Toolset,
) -> Turn:
    """A turn, its prose, its calls and its faults, and what else is wrong with it as a whole."""
    if calls and not faults:
        return Turn(text, said, "", tuple(calls), True, "healthy_call")
    whole = faults_of_turn(text, said, calls, faults, wire_format, toolset, calls_alone)
    faults = [*faults, *(found.told(wire_format) for found in whole)]
    return Turn(
        text,
        said,
        "",
        tuple(calls),
        is_calling(text, calls, faults, wire_format),
        turn_state(text, calls, faults, wire_format),
        tuple(faults),
    )
