"""Values that lost their end: what follows is never taken for a part of them."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, WireFormat
from toolguard.formats.wire_format import format_names

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
    "required": ["city"],
}
TOOLS = [{"name": "get_weather", "parameters": PARAMETERS}]
ONE = {"name": "get_weather", "arguments": {"city": "Berlin", "unit": "celsius"}}
TWO = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Berlin", "Rome")]
RAW = [name for name in format_names() if WireFormat.load(name).reader.heads.begin]


def called(turn: toolguard.Turn) -> list[dict[str, object]]:
    return [{"name": call.name, "arguments": call.arguments} for call in turn.calls]


def stops(name: str) -> set[str]:
    return {value.stop for value in WireFormat.load(name).reader.values.values()}


@pytest.mark.parametrize("calls", [[ONE], TWO], ids=["argument", "call"])
@pytest.mark.parametrize("name", RAW)
def test_a_value_without_its_end_takes_in_nothing(
    name: str, calls: list[dict[str, object]], tokenizer: PreTrainedTokenizerBase
) -> None:
    wire_format = WireFormat.load(name)
    whole = toolguard.render(wire_format, calls)
    assert called(toolguard.classify(whole, TOOLS, wire_format)) == calls
    at, stop = min((whole.index(s, whole.index("Berlin")), s) for s in stops(name) if s in whole)
    lost = whole[:at] + whole[at + len(stop) :]
    turn = toolguard.classify(lost, TOOLS, wire_format)
    assert turn.faults
    repair = toolguard.repair(lost, TOOLS, wire_format)
    assert repair.confidence in ("ambiguous", "refused") or called(repair.after) == calls
    state = Guard.compile(wire_format, TOOLS, tokenizer).start(2000)
    ids = tokenizer(lost, add_special_tokens=False)["input_ids"]
    assert not all(state.accept(token) for token in ids)


@pytest.mark.parametrize("name", RAW)
def test_a_single_tag_in_a_value_is_text(name: str) -> None:
    wire_format = WireFormat.load(name)
    for tag in {*wire_format.markup, *wire_format.controls} - stops(name):
        calls = [{"name": "get_weather", "arguments": {"city": f"Berlin {tag} here"}}]
        turn = toolguard.classify(toolguard.render(wire_format, calls), TOOLS, wire_format)
        assert turn.state == "healthy_call", tag
        assert called(turn) == calls


@pytest.mark.parametrize("name", RAW)
def test_a_turn_that_was_cut_off_behind_an_argument_is_not_closed(name: str) -> None:
    wire_format = WireFormat.load(name)
    whole = toolguard.render(wire_format, [ONE])
    cut = max(whole.index(stop) + len(stop) for stop in stops(name) if stop in whole)
    repair = toolguard.repair(whole[:cut], TOOLS, wire_format)
    # In Beam the end of the turn closes a call: the text alone cannot tell that it was cut off.
    assert repair.confidence == "refused" or name == "beam"
