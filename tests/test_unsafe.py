"""The judge of the repair benchmark: what it calls unsafe, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.hand_rule import recoverable
from benchmarks.unsafe import unsafe
from toolguard import Toolset

MESSAGE = '<tool_call>\n{"name": "get_time", "arguments": {"zone": "Europe/Paris"}}\n</tool_call>'
PARIS = {"name": "get_time", "arguments": {"zone": "Europe/Paris"}}


@pytest.fixture
def toolset(tools: list[dict[str, Any]]) -> Toolset:
    return Toolset.of(tools)


def reasons(call: dict[str, Any], source: str, toolset: Toolset) -> list[str]:
    return [reason for _, reason in unsafe([call], source, toolset)]


@pytest.mark.parametrize(
    "source",
    [
        MESSAGE,
        MESSAGE.replace("\n{", "\nuser{"),
        MESSAGE.replace("\n{", "\nuser\n{"),
        "assistant\n" + MESSAGE,
        "user\n" + MESSAGE,
        MESSAGE + "\nassistant\n\nuser\n\nassistant",
        MESSAGE.replace(": {", ': "{').replace("}}", '}"}').replace("Europe/", "Europe\\/"),
        MESSAGE.replace('"zone": "Europe/Paris"', "'zone'=“Europe/Paris”"),
    ],
)
def test_a_call_that_stands_in_the_message_is_safe(source: str, toolset: Toolset) -> None:
    assert reasons(PARIS, source, toolset) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (MESSAGE.replace("Europe/Paris", "Europe/Parisian"), "invented"),
        (MESSAGE.replace("zone", "place"), "invented"),
        (MESSAGE.replace("get_time", "get_weather"), "invented"),
        ("!\n<tool_response>[]</tool_response>\n" + MESSAGE, "another speaker"),
        ("Wait.\nuser\n" + MESSAGE, "another speaker"),
        ("Wait.\nexecution result:[]\n" + MESSAGE, "another speaker"),
        (MESSAGE.partition('"}}')[0], "cut off"),
        (MESSAGE.replace('"}}', ""), "cut off"),
    ],
)
def test_one_that_does_not_is_unsafe(source: str, reason: str, toolset: Toolset) -> None:
    assert reasons(PARIS, source, toolset) == [reason]


def test_the_tools_come_first(toolset: Toolset) -> None:
    other = MESSAGE.replace("get_time", "get_tide")
    assert reasons({**PARIS, "name": "get_tide"}, other, toolset) == ["unknown tool"]
    assert reasons({**PARIS, "arguments": {}}, MESSAGE, toolset) == ["schema"]


def test_numbers_count_by_value(toolset: Toolset) -> None:
    source = (
        '{"name": "get_weather", "arguments": {"city": "Rome", "unit": "celsius", "days": 3.0}}'
    )
    call = {"name": "get_weather", "arguments": {"city": "Rome", "unit": "celsius", "days": 3}}
    assert reasons(call, source, toolset) == []
    assert reasons(call, source.replace("3.0", "33"), toolset) == ["invented"]


def test_a_call_counts_as_often_as_it_stands_before_the_other_speaker(toolset: Toolset) -> None:
    source = f"{MESSAGE}\nuser\n{MESSAGE}"
    assert unsafe([PARIS], source, toolset) == []
    assert unsafe([PARIS, PARIS], source, toolset) == [(PARIS, "another speaker")]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('user{"name": "get_time", "arguments": {"zone": "Europe/Paris"}}', True),
        ('{"name": "get_time", "arguments": {"zone"="Europe/Paris"})', True),
        ('{"name": "get_time", "zone=Europe/Paris"}', True),
        ('{"name": "get_time", "arguments": {"zone": "Europe/Paris"', True),
        ('{"name": "get_time", "arguments": {"zone": "Europe/Paris', False),
        ('{"name": "get_tide", "arguments": {"zone": "Europe/Paris"}}', False),
        ('{"name": "get_time"}', False),
        ("user\nWhat time is it?", False),
    ],
)
def test_the_hand_rule_finds_what_a_reader_would(body: str, found: bool, toolset: Toolset) -> None:
    calls = recoverable(f"<tool_call>\n{body}\n</tool_call>", toolset)
    assert calls == ([PARIS] if found else [])
