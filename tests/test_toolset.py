from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

import toolguard
from toolguard import Toolset, ToolsetError


def test_openai_style_json_text_and_bare_functions_are_the_same_toolset() -> None:
    function = {
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
    wrapped = Toolset.of([{"type": "function", "function": function}])
    assert wrapped == Toolset.of([function])
    assert wrapped == Toolset.of(json.dumps([function]))
    assert wrapped.definitions == [{"type": "function", "function": function}]


def test_pydantic_models_and_annotated_functions_are_tools() -> None:
    class Search(BaseModel):
        """Search the archive."""

        query: str
        kind: Literal["text", "image"] = "text"
        limit: int = Field(default=3, ge=1, le=9)

    def weather(city: str, days: int = 1) -> str:
        """The weather.

        Args:
            city: Where.
            days: For how long.
        """
        return city * days

    toolset = Toolset.of([Search, weather])
    assert toolset.names == ("Search", "weather")
    assert toolset.errors("Search", {"query": "x", "limit": 4}) == []
    assert toolset.errors("Search", {"query": "x", "limit": 10})
    assert toolset.errors("weather", {"city": "Bern"}) == []
    assert toolset.errors("weather", {}) == ["arguments: 'city' is a required property"]


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{"name": "f"}, {"name": "f"}], "two tools are called 'f'"),
        ([{"name": ""}], "no usable name"),
        ([{"name": "a b"}], "no usable name"),
        ([{"function": 3}], "not an object"),
        ([3], "tool 0 is int"),
        ({"name": "f"}, "put the single tool into a list"),
        ("[", "no JSON"),
        ([{"name": "f", "parameters": "x"}], "not a JSON schema object"),
        ([{"name": "f", "parameters": {"type": "array"}}], "must be an object"),
        ([{"name": "f", "parameters": {"properties": {"a": {"type": "text"}}}}], "'text'"),
        ([{"name": "f", "parameters": {"properties": {"a": 3}}}], "no JSON schema"),
        ([{"name": "f", "parameters": {"properties": {"a": {"minimum": "1"}}}}], "properties/a"),
        ([{"name": "f", "parameters": {"properties": {"a": {"$ref": "#/$defs/x"}}}}], "nowhere"),
        ([{"name": "f", "parameters": {"properties": {"a": {"$ref": "http://x"}}}}], "inline it"),
        ([lambda x: x], "cannot describe the function"),
    ],
)
def test_malformed_tools_are_refused_with_the_place_named(tools: Any, message: str) -> None:
    with pytest.raises(ToolsetError, match=message.replace("$", r"\$")):
        Toolset.of(tools)


def test_spellings_are_normalised() -> None:
    properties = {
        "a": {"type": "dict", "properties": {"b": {"type": "float"}}},
        "c": {"type": "string", "nullable": True},
        "d": {"type": "tuple", "items": [{"type": "int"}]},
        "e": {"type": "any"},
    }
    toolset = Toolset.of([{"name": "f", "parameters": {"type": "dict", "properties": properties}}])
    good = {"a": {"b": 1.5}, "c": None, "d": [3], "e": {"x": []}}
    assert toolset.errors("f", good) == []
    for bad in ({"a": {"z": 1}}, {"c": 3}, {"d": ["x"]}, {"undeclared": 1}):
        assert toolset.errors("f", bad), bad


def test_an_object_stays_open_where_it_says_so_or_is_merged() -> None:
    parameters = {
        "properties": {
            "map": {"type": "object"},
            "said": {"type": "object", "properties": {}, "additionalProperties": True},
            "both": {
                "allOf": [
                    {"properties": {"a": {"type": "integer"}}},
                    {"properties": {"b": {"type": "integer"}}},
                ]
            },
        }
    }
    toolset = Toolset.of([{"name": "f", "parameters": parameters}])
    good = {"map": {"x": 1}, "said": {"y": 2}, "both": {"a": 1, "b": 2}}
    assert toolset.errors("f", good) == []


def test_what_is_required_but_not_listed_may_be_anything() -> None:
    toolset = Toolset.of([{"name": "f", "parameters": {"properties": {}, "required": ["x"]}}])
    assert toolset.errors("f", {"x": [1]}) == []
    assert toolset.errors("f", {})


def test_equal_content_is_an_equal_toolset_and_descriptions_do_not_count() -> None:
    one = Toolset.of([{"name": "f", "description": "one"}])
    two = Toolset.of([{"name": "f", "description": "two"}])
    assert one == two
    assert hash(one) == hash(two)
    assert one != Toolset.of([{"name": "g"}])


def test_a_case_file_names_the_broken_line(tmp_path: Any) -> None:
    path = tmp_path / "cases.jsonl"
    good = '{"tools": [], "messages": [{"role": "user", "content": "x"}], "calls": []}\n'
    path.write_text(good + "{\n")
    with pytest.raises(toolguard.CaseError, match=r"cases\.jsonl, line 2: no JSON"):
        toolguard.read_cases(path)
    path.write_text(good.replace("[]}", "[3]}"))
    with pytest.raises(toolguard.CaseError, match=r"line 1: 'calls'"):
        toolguard.read_cases(path)


KINDS = ("string", "integer", "number", "boolean", "null")
MORE = ({}, {"description": "d"}, {"enum": ["a", 1]}, {"minimum": 1}, {"minLength": 2})
SIMPLE = [{"type": kind, **more} for kind in KINDS for more in MORE]
ARRAYS = [
    {"type": "array", "items": items, **more} for items in SIMPLE for more in ({}, {"maxItems": 1})
]
OBJECTS = [
    {"type": "object", "properties": {"a": part}, **more}
    for part in SIMPLE
    for more in (
        {},
        {"required": ["a"]},
        {"additionalProperties": True},
        {"additionalProperties": {"type": "integer"}},
        {"minProperties": 1},
    )
]
SCALARS = (None, True, 0, 1, 1.0, 1.5, "a", "b")
VALUES = (
    *SCALARS,
    *([], ["a", "a"], [1, 1], [1, "a"], {}, {"b": 1}, {"a": 1, "b": "b"}),
    *([value] for value in SCALARS),
    *({"a": value} for value in SCALARS),
)


def test_validation_says_what_jsonschema_does() -> None:
    for schema in ({"type": "array"}, {"type": "object"}, *SIMPLE, *ARRAYS, *OBJECTS):
        toolset = Toolset.of([{"name": "f", "parameters": {"properties": {"x": schema}}}])
        plain = jsonschema.Draft202012Validator(toolset["f"].parameters)
        for value in VALUES:
            valid = plain.is_valid({"x": value})
            assert toolset.accepts("f", {"x": value}) == valid, (schema, value)
            assert (not toolset.errors("f", {"x": value})) == valid, (schema, value)
