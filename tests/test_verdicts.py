"""The agreement of mask, reader and jsonschema: it holds, and its check finds what is planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

import toolguard
from benchmarks.agreement import of_real_tools
from benchmarks.verdicts import of_definition, verdict
from toolguard import Guard, Toolset
from toolguard.tools.schemas import Correction

SERVER = Toolset.of((Path(__file__).parent / "server_tools.json").read_text("utf-8"))
FORMATS = ["hermes", "qwen3_xml", "glm_xml", "harmony", "pythonic", "kimi_k2"]


def guard_of(name: str, schema: Any, tokenizer: PreTrainedTokenizerBase) -> Guard:
    return Guard.compile(name, tools_of(schema), tokenizer)


def tools_of(schema: Any) -> Toolset:
    return Toolset.of([{"name": "f", "parameters": {"properties": {"a": schema}}}])


def judged(
    guard: Guard, value: Any, spelled: tuple[str, str] = ("", ""), **options: Any
) -> tuple[str, str]:
    """What is found of a call with this value: its difference, and what is recorded."""
    text = toolguard.render(guard.format, [{"name": "f", "arguments": {"a": value}}])
    text = text.replace(*spelled)
    ids = guard.tokenizer(text, add_special_tokens=False)["input_ids"]
    found = verdict(guard, guard.tokenizer, [*ids, guard.vocabulary.end_ids[0]], **options)
    return found.get("difference", ""), found.get("recorded", "")


@pytest.mark.parametrize("name", FORMATS)
def test_they_agree_on_the_tools_of_a_server(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    results = [*of_real_tools(name, [tokenizer], [SERVER], 80, Random(0))]
    assert not [each for each in results if "difference" in each]
    assert {each["kind"] for each in results if each["legal"]} >= {"right", "value", "spelling"}
    assert not all(each["legal"] for each in results)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("masked", "validated", "value", "difference"),
    [
        ({"type": "integer"}, {"type": "integer", "maximum": 9}, 10, "mask admits: maximum"),
        ({"type": "integer", "maximum": 9}, {"type": "integer"}, 10, "mask refuses"),
        ({"enum": ["x/y", "z"]}, {"enum": ["z"]}, "x/y", "mask admits: enum"),
        (
            {"type": "array", "uniqueItems": True},
            {"type": "array", "uniqueItems": True, "maxItems": 1},
            [1, 2],
            "mask admits: maxItems",
        ),
        (
            {"type": "object", "properties": {"b": {"not": {"const": 1}}, "c": {}}},
            {"type": "object", "properties": {"b": {}, "c": {"not": {"const": 1}}}},
            {"c": 1},
            "mask admits: not",
        ),
    ],
)
def test_a_planted_difference_between_mask_and_reader_is_found(
    name: str,
    masked: Any,
    validated: Any,
    value: Any,
    difference: str,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    guard = guard_of(name, masked, tokenizer)
    other = replace(guard, toolset=tools_of(validated))
    assert judged(guard, value)[0] == ""
    assert judged(other, value) == (difference, "")


@pytest.mark.parametrize(
    ("schema", "value", "spelled", "kind"),
    [
        ({"type": "array", "uniqueItems": True}, [1, 1], ("", ""), "mask admits: uniqueItems"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 1}]}, 2, ("", ""), "mask admits: oneOf"),
        ({"type": "string", "pattern": "^[^b]+$"}, "7c", ("7", r"\u0061"), "mask refuses"),
        ({"type": "number", "minimum": 1}, 77, ("77", "77e1"), "mask refuses"),
        ({"type": "integer"}, 77, ("77", "77.7e1"), "mask refuses"),
        ({"enum": ["c"]}, "c", ('"c"', r'"\u0063"'), "mask refuses"),
        ({"type": "string"}, "c", ('"a"', r'"\u0061"'), "mask refuses"),
    ],
)
def test_what_excuses_a_difference_is_recorded(
    schema: Any,
    value: Any,
    spelled: tuple[str, str],
    kind: str,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    guard = guard_of("hermes", schema, tokenizer)
    assert judged(guard, value, spelled) == ("", kind)
    assert judged(replace(guard, relaxations=()), value, spelled) == (kind, "")


def test_a_reader_that_takes_what_jsonschema_refuses_is_found(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    class Kind(Toolset):
        def errors(self, name: str, arguments: Any) -> list[str]:
            return []

    guard = guard_of("hermes", {"type": "integer"}, tokenizer)
    assert judged(guard, "1") == ("", "")
    kind = replace(guard, toolset=Kind(guard.toolset.tools))
    assert judged(kind, "1") == ("reader [], jsonschema [type]", "")


def test_arguments_that_are_read_as_others_are_found(tokenizer: PreTrainedTokenizerBase) -> None:
    for name in FORMATS:
        guard = guard_of(name, {"type": ["string", "integer"]}, tokenizer)
        assert judged(guard, 7, meant={"a": 7}) == ("", "")
        assert judged(guard, 7, meant={"a": 8})[0].startswith("what is read is not what was")
        told = judged(guard, "7", meant={"a": "7"}) == judged(guard, 7, meant={"a": "7"})
        assert told == name.endswith("_xml")


def test_a_definition_that_is_changed_unsaid_is_found() -> None:
    (tool,) = tools_of({"type": "integer"})
    assert of_definition(tool, {"a": "x"}) == of_definition(tool, {"b": 1}) == {}
    changed = replace(tool, parameters={"properties": {"a": {"type": "string"}}})
    assert of_definition(changed, {"a": "x"}).keys() == {"difference"}
    for place, kind in (("/properties/a", "recorded"), ("/properties/b", "difference")):
        said = replace(changed, corrections=(Correction("f", place, "type", "counts as string"),))
        assert of_definition(said, {"a": "x"}).keys() == {kind}
