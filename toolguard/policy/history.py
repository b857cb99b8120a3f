"""Corrupt turns in the history: what was broken once makes the next turn worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..formats.wire_format import WireFormat
from ..parsing.read import read_turn
from ..tools.toolset import Toolset


def cleaned(
    messages: Sequence[Mapping[str, Any]], wire_format: WireFormat, toolset: Toolset
) -> tuple[list[Mapping[str, Any]], int]:
    """A conversation without its assistant's corrupt turns, and how many there were.

    Of a polluted turn stay its text and its sound calls; one that says nothing is left out, as void
    turns are in SimpleTIR (arXiv 2509.02479). Turns whose calls were parsed are not looked at.
    """
    kept: list[Mapping[str, Any]] = []
    corrupt = 0
    for message in messages:
        content = message.get("content")
        written = message.get("role") == "assistant" and not message.get("tool_calls")
        turn = read_turn(content, wire_format, toolset) if isinstance(content, str) else None
        if not written or turn is None or not turn.faults:
            kept.append(message)
            continue
        corrupt += 1
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
        if turn.text or calls:
            mended = {**message, "content": turn.text}
            kept.append({**mended, "tool_calls": calls} if calls else mended)
    return kept, corrupt
