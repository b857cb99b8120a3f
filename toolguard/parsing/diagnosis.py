"""What is wrong with a turn that its format's parser does not follow to the end."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from lark import Token

from ..formats.reader import (
    LEADING_SPACE,
    MARKED,
    SPACE,
    control_pattern,
    fixed_text,
    marker,
    unmark,
)
from ..formats.wire_format import WireFormat
from ..report.report import State
from .faults import Found, Place, control_there, name_control, name_in_call
from .turn import Call, Fault
from .vocabulary import other_speaker

_ATTEMPTS = {"untagged_call", "foreign_format", "orphan_closer", "opener_as_word", "drifted_tag"}


def diagnose(place: Place, last: Token | None, called: bool) -> Found:
    """What the parser stumbled over.

    Args:
        place: where it did; its source is all of the turn, or as far as a control token behind.
        last: the token before.
        called: a call is over, sound or not.
    """
    source, position, own = place.source, place.position, place.wire_format
    size = len(source)
    opener = last_control(source, own.opener, own, position)
    closer = last_control(source, own.closer, own, position)
    if opener is not None and (closer is None or closer[0] < opener[0]):
        place = replace(place, body=opener[1])
    elif own.opener:
        place = replace(place, body=None)
    if position == size:
        return _at_the_end(place, opener, last)
    reasoning = "THOUGHT" in place.expected or (last is not None and last.type == "THOUGHT")
    mark = MARKED.search(source, position)
    if mark and source[position] in "\"'":
        # a string that a control token cuts off
        place = replace(place, position=mark.start())
    control = control_there(place)
    if control:
        return name_control(place, control, reasoning)
    if place.body is not None:
        return name_in_call(replace(place, source=source[: mark.end()] if mark else source))
    return _name_around(place, last, called or place.named, mark.end() if mark else size)


def _name_around(place: Place, last: Token | None, called: bool, size: int) -> Found:
    """Text outside calls that cannot be there."""
    source, position, own = place.source, place.position, place.wire_format
    rest = source[position:size]
    near = unmark(rest[:20], own.controls)
    behind = position + len(rest) - len(rest.lstrip(SPACE))
    start = len(source[:position].rstrip(SPACE))
    if behind > position and behind - start > LEADING_SPACE:
        message = "a run of white space where none may stand"
        return Found("blank_run", start, behind, message, "around")
    if control := control_there(replace(place, position=behind)):
        message = f"white space in front of {unmark(control, own.controls)!r}, where none may stand"
        return Found("blank_run", position, behind, message, "around")
    if last is None:
        message = f"no text can stand there: what opens it is missing before {near!r}"
        return Found("dropped_tag", position, size, message, "around")
    if speaks := other_speaker(rest):
        message = (
            "the model writes what only a tool may answer"
            if speaks == "fabricated_response"
            else f"{near!r}: the turn goes on as another speaker's"
        )
        return Found(speaks, position, size, message, "turn")
    if called:
        return Found("text_after_call", position, size, "text after a call", "around")
    message = f"the turn cannot go on with {near!r}"
    return Found("dropped_tag", position, size, message, "around")


def _at_the_end(place: Place, opener: tuple[int, int] | None, last: Token | None) -> Found:
    """What is missing at the end of a turn."""
    source, own = place.source, place.wire_format
    size = len(source)
    value = own.reader.values.get(last.type) if last is not None else None
    if value is not None and last is not None and not str(last).endswith(value.markup or "\0"):
        message = f"{value.stop!r} is missing: the value never ends"
        return Found("dropped_tag", last.start_pos or 0, size, message, "call")
    if place.body is not None:
        start = place.body if opener is None else opener[0]
        if place.before.strip(SPACE):
            return Found("missing_close", start, size, "the turn ends inside a call", "call")
        prose = source[:start].rpartition(own.reasoning_closer or "\0")[2]
        if re.search(r"\w", re.sub(control_pattern(own.controls), "", prose)):
            message = f"{own.opener} at the end of prose, and no call"
            return Found("opener_after_prose", start, size, message, "around")
        message = f"{own.opener}, then the turn ends"
        return Found("open_then_stop", start, size, message, "around")
    if not source.strip(SPACE):
        return Found("empty_turn", 0, size, "nothing at all", "turn")
    if last is not None and last.type == "THOUGHT":
        return Found("unclosed_reasoning", 0, size, "the reasoning is never closed", "turn")
    payload = re.search(rf"\{{[^\udc00-\udcff]*\}}(?=[{SPACE}]*(?:<|[\udc00-\udcff]))", source)
    if not own.reasoning_closer and payload and _is_object(payload[0]):
        message = "the arguments of a call as content: it has no recipient"
        return Found("missing_recipient", payload.start(), payload.end(), message, "around")
    if opener is not None or (not own.opener and any(text in source for text in own.markup)):
        start = 0 if opener is None else opener[0]
        message = "the turn ends before its calls are over"
        return Found("missing_close", start, size, message, "call")
    return Found("empty_turn", 0, size, nothing_after(source, own), "turn")


def nothing_after(source: str, wire_format: WireFormat) -> str:
    """What a turn ends in that says nothing, or too little."""
    said = unmark(source, wire_format.controls).rstrip(SPACE)
    if not said:
        return "nothing but white space"
    closings = (fixed_text(frame.closing).rstrip(SPACE) for frame in wire_format.reasonings)
    if said.endswith(tuple(closings)):
        return "reasoning and nothing after it"
    ends = [control for control in wire_format.controls if said.endswith(control)]
    return f"{max(ends, key=len, default=said[-20:])!r} and nothing after it"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def last_control(
    text: str, control: str, wire_format: WireFormat, before: int | None = None
) -> tuple[int, int] | None:
    """The span of a control token's last occurrence, marked or spelled; none of an empty one."""
    if not control:
        return None
    mark = marker(wire_format.controls.index(control))
    start, size = max((text.rfind(each, 0, before), len(each)) for each in (mark, control))
    return (start, start + size) if start >= 0 else None


def is_calling(
    source: str, calls: Sequence[Call], faults: Sequence[Fault], wire_format: WireFormat
) -> bool:
    """Whether a turn makes a call, or tries to."""
    tried = any(fault.where == "call" or fault.kind in _ATTEMPTS for fault in faults)
    return bool(calls) or tried or last_control(source, wire_format.opener, wire_format) is not None


def turn_state(
    source: str, calls: Sequence[Call], faults: Sequence[Fault], wire_format: WireFormat
) -> State:
    """The structural state of a finished turn."""
    if not faults:
        return "healthy_call" if calls else "healthy_response"
    said = re.sub(control_pattern(wire_format.controls), "", source)
    return "polluted" if calls or re.search(r"\w", said) else "collapsed"
