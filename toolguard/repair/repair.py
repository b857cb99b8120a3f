"""`toolguard.repair`: a turn in, the turn with its provable calls out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..formats.wire_format import WireFormat
from ..parsing.read import read_turn
from ..tools.toolset import ToolLike, Toolset
from .edits import Repair

Tools: TypeAlias = Toolset | Sequence[ToolLike]


def repair(text: str, tools: Tools, format: WireFormat | str = "auto") -> Repair:
    """Repairs a finished turn.

    Args:
        text: the turn, control tokens spelled out, without its end token.
        tools: the tools that were offered.
        format: the model's wire format, or its name; `auto` finds it.
    """
    wire_format = WireFormat.load("hermes") if format == "auto" else _loaded(format)
    turn = read_turn(text, wire_format, Toolset.of(tools))
    if not turn.faults:
        return Repair(wire_format.name, turn, turn, "exact")
    return Repair(wire_format.name, turn, turn, "refused", reason=turn.faults[0].message)


def _loaded(format: WireFormat | str) -> WireFormat:
    return WireFormat.load(format) if isinstance(format, str) else format
