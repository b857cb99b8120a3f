"""What the prompt of a turn has opened: its reasoning, a reply, or nothing.

A prompt says so. Where it is not at hand the turn may: text that is closed as reasoning, and was
not opened, was opened by the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from ..errors import RequestError
from ..formats.reader import Fixed, fixed_pattern, fixed_text, unmark
from ..formats.wire_format import WireFormat
from ..grammar.request import Reasoning, reasoning_after

Known: TypeAlias = bool | Literal["reply"]
"""What the prompt had opened: the reasoning (true), a reply, or nothing."""

Opened: TypeAlias = Known | Literal["auto"]
"""The same; `auto`: what the turn itself shows."""

START: Mapping[Known, str] = {False: "start", True: "opened", "reply": "replying"}
"""The rule that a turn is read by."""

OPENED: Mapping[Reasoning, Opened] = {
    "auto": "auto",
    "none": False,
    "open": True,
    "reply": "reply",
}
"""What a prompt says, as readers take it."""

_QUOTES = "`\"'"


def opened_by(prompt: str | None, wire_format: WireFormat, opened: Opened = "auto") -> Opened:
    """What a prompt, or its end, has opened, unless that is known already.

    Raises:
        RequestError: no prompt opens that in the format, or there is no such opening.
    """
    if opened not in ("auto", *START):
        raise RequestError(f"opened {opened!r}: use True, False, 'reply' or 'auto'")
    if opened == "reply" and not wire_format.answer.opening:
        raise RequestError(f"opened 'reply': no prompt opens a reply in {wire_format.name}")
    if opened != "auto" or prompt is None:
        return opened
    return OPENED[reasoning_after(prompt, wire_format)]


def shown(source: str, wire_format: WireFormat, begin: int = 0, final: bool = True) -> Known | None:
    """What a turn shows that its prompt had opened: what its first control token closes.

    One in quotes is a word of prose, and closes nothing.

    Args:
        source: the turn, or what there is of it; control tokens spelled out, or marked.
        begin: no control token begins before.
        final: it is all of the turn.

    Returns:
        None if it is too early to tell.
    """
    reasoning, answer = wire_format.reasoning.closing, wire_format.answer.closing
    if not reasoning and not answer:
        return False
    first = wire_format.any_control.search(source, begin)
    if first is None:
        return False if final else None
    at = first.start()
    closings: dict[Known, Fixed] = {True: reasoning, "reply": answer}
    if not wire_format.ends_reasoning_only and any(it in source[:at] for it in wire_format.markup):
        # A call that lost what opens it: what closes reasoning closes calls, too.
        closings[True] = ()
    for opened, closing in closings.items():
        if not closing:
            continue
        found = re.compile(fixed_pattern(closing, wire_format.controls)).match(source, at)
        if found is None:
            spelled = fixed_text(closing)
            begun = unmark(source[at : at + len(spelled)], wire_format.controls)
            if not final and spelled.startswith(begun):
                return None
            continue
        quote = source[at - 1 : at]
        if quote not in _QUOTES or not quote:
            return opened
        if found.end() == len(source) and not final:
            return None
        return opened if source[found.end() : found.end() + 1] != quote else False
    return False


def longest(wire_format: WireFormat) -> int:
    """How long what may show it is, at the most, spelled; a quotation mark behind it included."""
    closings = wire_format.reasoning.closing, wire_format.answer.closing
    return max(len(fixed_text(closing)) for closing in closings) + 1
