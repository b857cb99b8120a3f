from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
        ([{"name": "f", "parameters": {"properties": {"a": {"type": {}}}}}], "properties/a/type"),
        ([{"name": "f", "parameters": {"required": 3}}], "no list of names"),
        ([{"name": "f", "parameters": {"allOf": {}}}], "no list of schemas"),
        ([{"name": "f", "parameters": {"properties": "x"}}], "no object of schemas"),
        ([lambda x: x], "cannot describe the function"),
    ],
)
def test_malformed_tools_are_refused_with_the_place_named(tools: Any, message: str) -> None:
    with pytest.raises(ToolsetError, match=message.replace("$", r"\$")):
        Toolset.of(tools)


STRING = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize("key", ["inputSchema", "input_schema"])
def test_mcp_and_anthropic_tools_keep_their_arguments(key: str) -> None:
    toolset = Toolset.of([{"name": "f", "description": None, key: STRING}])
    assert toolset == Toolset.of([{"name": "f", "parameters": STRING}])
    function = {"name": "f", "parameters": STRING}
    assert toolset.definitions == [{"type": "function", "function": function}]
    with pytest.raises(ToolsetError, match="several schemas"):
        Toolset.of([{"name": "f", key: STRING, "parameters": STRING}])


@pytest.mark.parametrize(
    ("parameters", "good", "bad", "corrected"),
    [
        ({**STRING, "required": None}, {}, {"a": 1}, "required"),
        ({**STRING, "type": "OBJECT"}, {"a": "x"}, {}, "type"),
        ({**STRING, "type": ["object", "null"]}, {"a": "x"}, {}, "type"),
        ({**STRING, "required": ["a", "a"]}, {"a": "x"}, {}, None),
        ({"properties": []}, {}, {"a": 1}, "properties"),
        ({"properties": {"a": {"type": "STRING"}}}, {"a": "x"}, {"a": 1}, "type"),
        ({"properties": {"a": {"type": "string", "enum": None}}}, {"a": "x"}, {"a": 1}, "enum"),
        ({"properties": {"a": {"type": "string", "required": True}}}, {"a": "x"}, {}, "required"),
        ({"properties": {"a": {"type": "string", "required": False}}}, {}, {"a": 1}, None),
        ({"properties": {"a": {"minimum": 1, "exclusiveMinimum": True}}}, {"a": 2}, {"a": 1},
         "exclusiveMinimum"),
        ({"properties": {"a": {"minimum": 1, "exclusiveMinimum": False}}}, {"a": 1}, {"a": 0},
         "exclusiveMinimum"),
        ({"properties": {"a": {"maximum": 1, "exclusiveMaximum": True}}}, {"a": 0}, {"a": 1},
         "exclusiveMaximum"),
        ({"properties": {"a": {"minItems": 1.0, "maxItems": 2.0}}}, {"a": [1]}, {"a": []}, None),
        ({"properties": {"a": {"maxLength": 2.0}}}, {"a": "xy"}, {"a": "xyz"}, None),
        ({"properties": {"a": {"pattern": r"^\p{L}+$"}}}, {"a": "é"}, {"a": "1"}, None),
        ({"properties": {"a": {"pattern": "((", "maxLength": 2}}}, {"a": "x"}, {"a": "xyz"},
         "pattern"),
    ],
)  # fmt: skip
def test_what_is_plainly_meant_is_put_right_and_recorded(
    parameters: Any, good: Any, bad: Any, corrected: str | None, tokenizer: Any
) -> None:
    toolset = Toolset.of([{"name": "f", "parameters": parameters}])
    assert toolset.errors("f", good) == []
    assert toolset.errors("f", bad)
    assert {each.keyword for each in toolset.corrections} == ({corrected} - {None})
    for name in ("hermes", "qwen3_xml", "pythonic"):
        toolguard.Guard.compile(name, toolset, tokenizer)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["a", "string", "#/$defs/a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "type", "$ref", "items"]), inner, max_size=2)
    ),
    max_leaves=3,
)
KEYWORDS = (
    *("type", "properties", "required", "items", "prefixItems", "additionalProperties", "$ref"),
    *("enum", "const", "allOf", "anyOf", "not", "if", "$defs", "patternProperties", "pattern"),
    *("minimum", "exclusiveMinimum", "maxLength", "minItems", "nullable", "dependentRequired"),
)


@settings(max_examples=400)
@given(
    st.dictionaries(st.sampled_from(KEYWORDS), JUNK, max_size=4),
    st.dictionaries(st.sampled_from(KEYWORDS), JUNK, max_size=4),
)
def test_whatever_a_schema_is_it_is_taken_or_refused_by_an_error_of_ours(
    top: dict[str, Any], inner: dict[str, Any]
) -> None:
    for parameters in (top, {"properties": {"a": inner}}):
        with suppress(ToolsetError):  # any other error fails the test
            Toolset.of([{"name": "f", "parameters": parameters}]).errors("f", {"a": 1})


def test_bounds_that_leave_nothing_are_refused_where_they_are_required(tokenizer: Any) -> None:
    for kind, bounds in (
        ("integer", {"minimum": 5, "maximum": 3}),
        ("integer", {"exclusiveMinimum": 3, "exclusiveMaximum": 4}),
        ("number", {"minimum": 3, "exclusiveMaximum": 3}),
        ("string", {"minLength": 3, "maxLength": 2}),
        ("array", {"minItems": 3, "maxItems": 2}),
        ("object", {"minProperties": 3, "maxProperties": 2}),
    ):
        parameters = {"properties": {"n": {"type": kind, **bounds}, "m": {"type": "string"}}}
        for name in ("hermes", "qwen3_xml", "pythonic"):
            tools = [{"name": "f", "parameters": {**parameters, "required": ["n"]}}]
            with pytest.raises(ToolsetError, match="'f': no arguments can satisfy"):
                toolguard.Guard.compile(name, tools, tokenizer)
            toolguard.Guard.compile(name, [{"name": "f", "parameters": parameters}], tokenizer)


@pytest.mark.parametrize("name", ["hermes", "qwen3_xml", "pythonic", "gemma4"])
@pytest.mark.parametrize(
    ("bounds", "relaxed"),
    [
        ({"pattern": r"\d{4}"}, False),
        ({"pattern": "https?://"}, False),
        ({"pattern": r".*\.py$"}, False),
        ({"pattern": r"^[^@]+@[^@]+\.[^@]+$"}, False),
        ({"pattern": r"^projects/[^/]+/locations/[^/]+/instances/[^/]+$"}, False),
        ({"pattern": "^a|b$"}, False),
        ({"pattern": r"\bword\b"}, True),
        ({"pattern": "^a{5000}$"}, True),
        ({"pattern": "^a$", "minLength": 4}, True),
        ({"minLength": 150}, False),
        ({"format": "email"}, True),
    ],
)  # fmt: skip
def test_a_string_that_can_be_written_is_never_refused(
    name: str, bounds: dict[str, Any], relaxed: bool, tokenizer: Any
) -> None:
    properties = {"a": {"type": "string", **bounds}}
    tools = [{"name": "f", "parameters": {"properties": properties, "required": ["a"]}}]
    guard = toolguard.Guard.compile(name, tools, tokenizer, tool_choice="required")
    # Of a pattern that is held the mask only asks that its characters stand as they are.
    said = [each for each in guard.relaxations if "escapes" not in each.reason]
    assert bool({each.keyword for each in said} & {"pattern", "format"}) == relaxed
    turn = guard.read(guard.shortest_turn)
    if relaxed and "pattern" in bounds:
        assert not turn.calls or guard.toolset.accepts("f", turn.calls[0].arguments)
    else:
        assert [call.name for call in turn.calls] == ["f"]


@pytest.mark.parametrize("name", ["hermes", "qwen3_xml", "pythonic", "kimi_k2"])
def test_what_the_mask_leaves_to_validation_at_the_top_is_said(name: str, tokenizer: Any) -> None:
    said = {
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"a": {"required": ["b"]}},
        "not": {"required": ["b"]},
        "if": {"required": ["b"]},
        "propertyNames": {"minLength": 2},
        "patternProperties": {"^x": {"type": "integer"}},
        "unevaluatedProperties": False,
    }
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}, **said}
    guard = toolguard.Guard.compile(name, [{"name": "f", "parameters": parameters}], tokenizer)
    assert {each.keyword for each in guard.relaxations} >= said.keys()


def test_a_name_with_colons_is_called_in_every_format() -> None:
    toolset = Toolset.of([{"name": "ns::tool", "parameters": STRING}])
    for name in toolguard.format_names():
        wire_format = toolguard.WireFormat.load(name)
        text = toolguard.render(wire_format, [{"name": "ns::tool", "arguments": {"a": "b"}}])
        turn = toolguard.read_turn(text, wire_format, toolset)
        assert [(call.name, call.arguments) for call in turn.calls] == [("ns::tool", {"a": "b"})]


def test_spellings_are_normalised() -> None:
    properties = {
        "a": {"type": "dict", "properties": {"b": {"type": "float"}}},
        "c": {"type": "string", "nullable": True},
        "d": {"type": "tuple", "items": [{"type": "int"}]},
        "e": {"type": "any"},
    }
    toolset = Toolset.of([{"name": "f", "parameters": {"type": "dict", "properties": properties}}])
    said = {(each.path[-1:], each.keyword) for each in toolset.corrections}
    assert said >= {("", "type"), *zip("acde", ("type", "nullable", "items", "type"), strict=True)}
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
