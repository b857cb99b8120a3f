"""One structural token deleted, doubled or swapped: never other calls without a fault."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import toolguard
from toolguard import Toolset, WireFormat
from toolguard.formats.wire_format import format_names

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
    "required": ["city"],
}
TOOLS = Toolset.of([{"name": "get_weather", "parameters": PARAMETERS}])
CALL = {"name": "get_weather", "arguments": {"city": "Berlin", "unit": "celsius"}}
BEGINS_A_VALUE = ">"
"""What a value may begin with by chance, so that nobody can tell that it was doubled."""


def damaged(text: str, wire_format: WireFormat) -> Iterator[str]:
    """A turn with one structural token deleted, doubled, or swapped with the next one."""
    fixed = {*wire_format.controls, *wire_format.markup, *wire_format.reader.written.values()}
    known = "|".join(map(re.escape, sorted(fixed, key=len, reverse=True)))
    pieces = re.split(rf"({known}|[{{}}\[\]\",:'=()])", text)
    for i in range(1, len(pieces), 2):
        yield "".join(pieces[:i] + pieces[i + 1 :])
        if not (pieces[i] == BEGINS_A_VALUE and pieces[i + 1].strip()):
            yield "".join(pieces[: i + 1] + pieces[i:])
        if i + 2 < len(pieces):
            a, between, b = pieces[i : i + 3]
            yield "".join([*pieces[:i], b, between, a, *pieces[i + 3 :]])


def called(turn: toolguard.Turn) -> list[dict[str, object]]:
    return [{"name": call.name, "arguments": call.arguments} for call in turn.calls]


@pytest.mark.parametrize("name", format_names())
def test_one_structural_token_out_of_place_makes_no_other_calls(name: str) -> None:
    wire_format = WireFormat.load(name)
    for text in damaged(toolguard.render(wire_format, [CALL]), wire_format):
        turn = toolguard.classify(text, TOOLS, wire_format)
        assert turn.faults or called(turn) == [CALL], text
        if turn.faults:
            repair = toolguard.repair(text, TOOLS, wire_format)
            assert repair.after.faults or called(repair.after) == [CALL], text
