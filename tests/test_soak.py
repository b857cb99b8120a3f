"""Bounds of every size in tools as servers list them, in every format: right calls are admitted
from the first id to the last, and the guard is as good afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from benchmarks.growth import LISTED
from toolguard import Guard, WireFormat, render

from .sizes import ENCODINGS, formats, in_turn
from .turns import examples

BOUNDS: dict[str, dict[str, Any]] = {
    **{f"maxLength {size}": {"maxLength": size} for size in (60, 100, 500, 2_000, 20_000)},
    "minLength": {"minLength": 40},
    "both": {"minLength": 1, "maxLength": 255},
    "pattern": {"pattern": r"^\S[\s\S]*$"},
    "maxItems": {"maxItems": 10},
    "items": {"minItems": 1, "maxItems": 50},
}
PROSE = 'It is <b>so</b>, </para "or" not: {x, [1, 2]}\n\t\\d+ (ü, 日本) \'s; '
LONGEST = 300
"""How long the values of all tools are at the most: more takes its time."""


def bounded(schema: Any, bound: dict[str, Any]) -> Any:
    """The schema with these bounds on every string, or every array, that has none of its own."""
    if isinstance(schema, list):
        return [bounded(each, bound) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: bounded(value, bound) for key, value in schema.items()}
    of_arrays = "maxItems" in bound
    free = not inner.keys() & {"enum", "format", "pattern", "minItems"}
    return (
        {**inner, **bound}
        if schema.get("type") == ("string", "array")[of_arrays] and free
        else inner
    )


def value(schema: Any, text: str, whole: Any, full: bool) -> Any:
    """A right value: with all that is optional and as long as may be, or the least."""
    if "$ref" in schema:
        return value(whole["$defs"][schema["$ref"].rpartition("/")[2]], text, whole, full)
    if "anyOf" in schema:
        return value(schema["anyOf"][0 if full else -1], text, whole, full)
    if "enum" in schema:
        return schema["enum"][-1]
    kind = schema.get("type", "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties, required = schema.get("properties", {}), schema.get("required", ())
            made = {
                key: value(inner, text, whole, full)
                for key, inner in properties.items()
                if full or key in required
            }
            if (
                full
                and "additionalProperties" in schema
                and schema["additionalProperties"] is not False
            ):
                made["$match"] = {"n": {"$gt": 1.5}, "a b": [None]}
            return made
        case "array":
            count = schema.get("minItems", 0)
            if full:
                count = min(schema.get("maxItems", 2), 12)
            return [value(schema["items"], text, whole, False) for _ in range(count)]
        case "string":
            return string(schema, text)
        case "boolean":
            return full
        case kind:
            return 7 if kind == "integer" or not full else 19.5


def string(schema: dict[str, Any], text: str) -> str:
    match schema:
        case {"format": "date-time"}:
            return "2026-01-31T12:00:00Z"
        case {"format": "uuid"}:
            return "123e4567-e89b-12d3-a456-426614174000"
        case {"format": "uri"}:
            return "https://example.org/a?b=c#d"
        case {"pattern": "^[A-Z][A-Z0-9_]+$"}:
            return "TG_1"
    size: int = min(schema.get("maxLength", schema.get("minLength", 8)), LONGEST)
    return "x" + (text * (size // len(text) + 1))[: size - 2] + "x"


def begun_ends(wire_format: WireFormat) -> str:
    """The beginnings of what ends a value in the format, one after the other."""
    turn = render(wire_format, [{"name": "f", "arguments": {"a": "value"}}])
    end = turn[turn.rindex("value") + len("value") :]
    return "".join(f"{end[:size]} " for size in (1, 2, 3, 4))


def walks(guard: Guard, turn: str) -> Iterator[bool]:
    """Whether each id of a turn, and the end after it, is in the mask when its turn comes."""
    state = guard.start(100_000)
    ids = guard.tokenizer(turn, add_special_tokens=False, verbose=False)["input_ids"]
    for token in [*ids, guard.vocabulary.end_ids[0]]:
        yield bool(state.mask()[token >> 5] >> (token & 31) & 1) and state.accept(token)
        assert not state.lost, turn
    assert state.done
    assert guard.read(state.ids).faults == (), turn


@in_turn("bound", [*BOUNDS], small=ENCODINGS)
def test_right_calls_are_admitted_and_the_guard_goes_on(
    name: str, bound: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    tools = bounded(LISTED, BOUNDS[bound])
    guard = Guard.compile(name, tools, tokenizer)
    reply = next(each["turn"] for each in examples(name) if not each["calls"])
    another = walks(guard, reply)
    assert next(another)
    for tool in tools:
        schema = tool["inputSchema"]
        for text, full in ((PROSE, True), (begun_ends(guard.format), False)):
            arguments = value(schema, text, schema, full)
            turn = render(guard.format, [{"name": tool["name"], "arguments": arguments}])
            # Under a pattern, Python's escapes are left to strings in double quotes: a relaxation.
            relaxed = "\\'" in turn and any(each.keyword == "pattern" for each in guard.relaxations)
            assert relaxed or all(walks(guard, turn)), turn
    assert all(another)
    assert all(walks(guard, reply))


@pytest.mark.parametrize("size", [60, pytest.param(2_000, marks=pytest.mark.slow)])
@formats()
def test_a_value_ends_where_it_is_as_long_as_it_may_be(
    name: str, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    bound = {"type": "string", "maxLength": size}
    listed = {"type": "array", "items": bound, "maxItems": 2}
    properties = {"a": bound, "b": listed}
    tools = [{"name": "f", "parameters": {"properties": properties, "required": ["a"]}}]
    guard = Guard.compile(name, tools, tokenizer)

    def admits(arguments: dict[str, Any]) -> bool:
        turn = render(guard.format, [{"name": "f", "arguments": arguments}])
        return all(walks(guard, turn))

    plain, longer = "x" * size, "x" * (size + 1)
    for text in (plain, "日" * size, string(bound, PROSE), string(bound, begun_ends(guard.format))):
        assert admits({"a": text}), text
        assert admits({"a": "", "b": [text, text]}), text
    # Without a sign of its end, a value is as long as it may be, and not longer.
    assert not admits({"a": longer})
    assert not admits({"a": "", "b": [plain, longer]})
    assert not admits({"a": "", "b": ["", "", ""]})
