"""What models write in another way, in every format: it comes back whole."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import toolguard
from toolguard import FormatError, WireFormat

from .sizes import in_turn

TEXT = {"type": "string"}
TOOLS = [
    {"name": name, "parameters": {"type": "object", "properties": keys, "required": [*keys]}}
    for name, keys in (
        ("get_time", {"time_zone": TEXT}),
        ("log", {"rows": {"type": "array"}, "note": TEXT}),
        ("count", {"n": {"type": "integer"}}),
        ("now", {}),
    )
]
Calls = list[tuple[str, dict[str, Any]]]
COUNT = [("count", {"n": 1})]
BODY = '{"name": "count", "arguments": {"n": 1}}'

formats = pytest.mark.parametrize("name", toolguard.format_names())


def written(name: str, call: str, **arguments: Any) -> str:
    try:
        text = toolguard.render(WireFormat.load(name), [{"name": call, "arguments": arguments}])
    except FormatError:
        pytest.skip("the format cannot write it")
    return text


def calls(text: str, name: str) -> Calls:
    return [(call.name, call.arguments) for call in toolguard.repair(text, TOOLS, name).after.calls]


def damaged(text: str, old: str, new: str) -> str:
    if old not in text:
        pytest.skip("the format does not write it so")
    return text.replace(old, new)


@in_turn("note", ["ZqZ", '["b"]'])
def test_a_list_that_was_encoded_twice_is_one_again(name: str, note: str) -> None:
    text = written(name, "log", rows=["b"], note=note)
    quoted = re.search(r"[:=>]\s*\[(\"b\"|'b')\]", text)
    if not quoted or WireFormat.load(name).reader.values:
        pytest.skip("the format has no strings in quotes")
    start, end = quoted.span()
    text = (
        text[:start]
        + quoted[0].replace("['b']", '["b"]').replace('["b"]', json.dumps('["b"]'))
        + text[end:]
    )
    expected: list[Calls] = [[("log", {"rows": ["b"], "note": note})]]
    assert calls(text, name) in (expected if note == "ZqZ" else [[], *expected])


@formats
def test_names_with_the_escapes_of_markdown_lose_them(name: str) -> None:
    text = written(name, "get_time", time_zone="UTC")
    text = re.sub(r"get_time|time_zone", lambda word: word[0].replace("_", r"\_"), text)
    assert calls(text, name) == [("get_time", {"time_zone": "UTC"})]


@in_turn("prefix", "fru")
def test_the_prefix_of_a_plain_string_goes(name: str, prefix: str) -> None:
    text = written(name, "get_time", time_zone="ZqZ")
    text = re.sub(r"([\"'])ZqZ\1", lambda string: prefix + string[0], text)
    damaged(text, f"{prefix}{text[text.find('ZqZ') - 1]}", "")
    assert calls(text, name) == [("get_time", {"time_zone": "ZqZ"})]


@in_turn("pattern", [r"\d+", r"\.py$"])
def test_a_lone_backslash_stays_one(name: str, pattern: str) -> None:
    text = re.sub(r"([\"'])ZqZ\1", '"ZqZ"', written(name, "get_time", time_zone="ZqZ"))
    expected = [("get_time", {"time_zone": pattern})]
    assert calls(damaged(text, '"ZqZ"', f'"{pattern}"'), name) == expected


@in_turn("value", [r'f"{zone}"', r"f'{{UTC}}'", r'r"\d"', r'b"UTC"', 'f"a" "b"'])
def test_a_string_that_its_prefix_changes_is_refused(name: str, value: str) -> None:
    text = written(name, "get_time", time_zone="ZqZ")
    assert calls(damaged(text.replace("'ZqZ'", '"ZqZ"'), '"ZqZ"', value), name) == []


@formats
def test_reasoning_in_front_of_a_call_is_none_of_it(name: str) -> None:
    text = f"<think>\ncount(n=2)?\n</think>\n{written(name, 'count', n=1)}"
    assert calls(text, name) == COUNT


@formats
def test_nothing_for_the_arguments_of_a_tool_without_any(name: str) -> None:
    text = damaged(written(name, "now"), "{}", "null")
    if "nownull" in text:
        pytest.skip("nothing stands between the name and its arguments")
    assert calls(text, name) == [("now", {})]


@in_turn(
    "text",
    [
        "[{'name': 'count', 'arguments': {'n': 1}}]",
        "{'name': 'count', 'arguments': {'n': 1}}",
        "['count(n=1)']",
        f'{{"tool_calls": [{BODY}]}}',
        f"<function_call>\n{BODY}\n</function_call>",
        f"```json\n{BODY}\n```",
        f"<tool_call>{BODY}</tool_call>",
    ],
)
def test_a_call_as_others_write_it_is_one(name: str, text: str) -> None:
    assert calls(text, name) == COUNT
