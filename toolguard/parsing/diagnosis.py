"""What is wrong with a turn that its format's parser does not follow to the end."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lark import Token

from ..formats.reader import MARKED, SPACE, control_pattern, marker, unmark
from ..formats.wire_format import WireFormat
from ..report.report import State
from .turn import Call, Fault, FaultKind

_OF_CALLS = {"untagged_call", "malformed_call", "unknown_tool", "bad_arguments"}


def diagnose(
    source: str, position: int, last: Token | None, wire_format: WireFormat
) -> tuple[FaultKind, int, int, str]:
    """What the parser stumbled over: kind, start, end, message.

    Args:
        source: the turn as marked text; all of it, or as far as a control token after `position`.
        position: where it stumbled.
        last: the token before.
    """
    size = len(source)
    opener = last_control(source[:position], wire_format.opener, wire_format)
    closer = last_control(source[:position], wire_format.closer, wire_format)
    inside = opener is not None and (closer is None or closer.start() < opener.start())
    if position == size:
        if inside and opener is not None:
            start = opener.start()
            if not source[opener.end() :].strip(SPACE):
                return "open_then_stop", start, size, f"{wire_format.opener}, then the turn ends"
            return "missing_close", start, size, "the turn ends inside a call"
        if not source.strip(SPACE):
            return "empty_turn", 0, size, "nothing at all"
        if last is not None and last.type in ("FREE", "THOUGHT"):
            return "unclosed_reasoning", 0, size, "the reasoning is never closed"
        return "empty_turn", 0, size, "reasoning and nothing after it"
    mark = MARKED.search(source, position)
    if mark and source[position] in "\"'":
        position = mark.start()  # a string that a control token cuts off
    control = re.compile(control_pattern(wire_format.controls)).match(source, position)
    if control:
        spelled = unmark(control[0], wire_format.controls)
        where = "inside a call" if inside else "where it has no business"
        return "stray_control", position, control.end(), f"{spelled!r} {where}"
    size = mark.end() if mark else size
    if inside:
        near = unmark(source[position : min(position + 20, size)], wire_format.controls)
        return "malformed_call", position, size, f"the call breaks off at {near!r}"
    if closer is not None:
        return "text_after_call", position, size, "text after the calls"
    return "blank_run", position, size, "the turn opens with a run of white space"


def last_control(text: str, control: str, wire_format: WireFormat) -> re.Match[str] | None:
    """The last occurrence of a control token, marked or spelled; none of an empty one."""
    mark = re.escape(marker(wire_format.controls.index(control))) if control else ""
    found = list(re.finditer(f"{mark}|{re.escape(control)}", text)) if control else []
    return found[-1] if found else None


def is_calling(
    source: str, calls: Sequence[Call], faults: Sequence[Fault], wire_format: WireFormat
) -> bool:
    """Whether a turn makes a call, or tries to."""
    tried = any(fault.kind in _OF_CALLS for fault in faults)
    return bool(calls) or tried or last_control(source, wire_format.opener, wire_format) is not None


def turn_state(
    source: str, calls: Sequence[Call], faults: Sequence[Fault], wire_format: WireFormat
) -> State:
    """The structural state of a finished turn."""
    if not faults:
        return "healthy_call" if calls else "healthy_response"
    said = re.sub(control_pattern(wire_format.controls), "", source)
    return "polluted" if calls or re.search(r"\w", said) else "collapsed"
