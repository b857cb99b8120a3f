"""Tools too large for a mask: loosened and said so, never refused; the others are held in full."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from benchmarks.growth import listed
from toolguard import Guard, render

from .sizes import formats
from .test_masks import encode, walks

WORDS = [f"word {n}" for n in range(40_000)]
SMALL = {"name": "small", "parameters": {"properties": {"unit": {"enum": ["m", "km"]}}}}
LARGE: dict[str, dict[str, Any]] = {
    "an enum": {"properties": {"x": {"enum": WORDS}, "n": {"type": "integer"}}},
    "a root that refers": {
        "$ref": "#/$defs/whole",
        "$defs": {"whole": {"type": "object", "properties": {"x": {"enum": WORDS}, "n": {}}}},
    },
    "a root with parts": {
        "anyOf": [
            {"properties": {"x": {"enum": WORDS}}, "required": ["x"]},
            {"properties": {"x": {"type": "string"}, "n": {"type": "integer"}}},
        ],
    },
    "names by pattern": {
        "properties": {"x": {"enum": WORDS}},
        "patternProperties": {"^n$": {"type": "integer"}},
        "additionalProperties": False,
    },
}


def references(count: int, depth: int) -> dict[str, Any]:
    """A small schema of very many values: each of its objects holds `count` of the next."""
    defs: dict[str, Any] = {f"d{depth}": {"type": "string"}}
    for level in range(depth):
        inner = {"description": "more", "minProperties": 0, "$ref": f"#/$defs/d{level + 1}"}
        properties = {f"k{n}": inner for n in range(count)}
        defs[f"d{level}"] = {"type": "object", "properties": properties}
    return {"properties": {"x": {"$ref": "#/$defs/d0"}, "n": {"type": "integer"}}, "$defs": defs}


def loose(guard: Guard) -> list[str]:
    return [each.tool for each in guard.relaxations if "too large for a mask" in each.reason]


def admits(guard: Guard, name: str, arguments: dict[str, Any]) -> bool:
    turn = render(guard.format, [{"name": name, "arguments": arguments}])
    return walks(guard, [*encode(guard.tokenizer, turn), guard.vocabulary.end_ids[0]])


@pytest.mark.parametrize("what", LARGE)
@pytest.mark.parametrize("name", ["hermes", "qwen3_xml", "gemma4", "minimax_m3", "pythonic"])
def test_a_tool_too_large_is_called_and_said_to_be_loosened(
    name: str, what: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile(name, [{"name": "large", "parameters": LARGE[what]}, SMALL], tokenizer)
    assert loose(guard) == ["large"]
    for arguments in ({"x": "word 7"}, {"x": "word 7", "n": 3}):
        assert admits(guard, "large", arguments)
    assert admits(guard, "small", {"unit": "km"})
    assert not admits(guard, "small", {"unit": "mi"})


def test_what_a_loosened_tool_may_not_be_given_is_told_of_the_finished_call(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tools = [{"name": "large", "parameters": LARGE["an enum"]}]
    guard = Guard.compile("hermes", tools, tokenizer)
    turn = render(guard.format, [{"name": "large", "arguments": {"x": "no such word"}}])
    turned = guard.read([*encode(tokenizer, turn), guard.vocabulary.end_ids[0]])
    assert [fault.kind for fault in turned.faults] == ["bad_arguments"]
    assert not admits(guard, "large", {"n": "three"})
    assert not admits(guard, "large", {"other": 3})


@pytest.mark.parametrize("name", ["hermes", "qwen3_xml"])
def test_references_that_come_to_too_much_are_loosened(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tools = [SMALL, {"name": "large", "parameters": references(40, 6)}]
    guard = Guard.compile(name, tools, tokenizer)
    assert loose(guard) == ["large"]
    assert admits(guard, "large", {"x": {"k1": {"k39": {}}}, "n": 3})
    assert not admits(guard, "large", {"n": "three"})
    assert not admits(guard, "small", {"unit": "mi"})


@formats()
def test_tools_as_servers_list_them_are_held_in_full(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert not loose(Guard.compile(name, listed(40), tokenizer))


@formats(("hermes", "qwen3_xml"))
def test_an_object_of_thousands_of_members_harms_nobody(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    properties = {f"p{n}": {"type": "string"} for n in range(3000)}
    parameters = {"properties": properties, "required": ["p1000"]}
    guard = Guard.compile(name, [{"name": "f", "parameters": parameters}], tokenizer)
    assert any("more than 64 properties" in each.reason for each in guard.relaxations)
    assert admits(guard, "f", {"p0": "a", "p2999": "c", "p1000": "b", "p7": "d"})
    assert admits(guard, "f", {"p1000": "b"})
    assert not admits(guard, "f", {"p999": "b", "p2999": "c"})
    assert not admits(guard, "f", {})
