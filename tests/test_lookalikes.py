"""Turns that look like tool calls and are none: a repair gives back no call for any of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import toolguard
from toolguard import Toolset, WireFormat

HERE = Path(__file__).parent
TOOLS = {
    tool["function"]["name"]: tool
    for tool in json.loads((HERE / "lookalike_tools.json").read_text("utf-8"))
}
LINES: list[dict[str, Any]] = [
    json.loads(line) for line in (HERE / "lookalikes.jsonl").read_text("utf-8").splitlines()
]
KINDS = {
    "documentation",
    "quoted_example",
    "code_snippet",
    "json_data",
    "clarifying_question",
    "refusal_or_plan",
    "injected_text",
    "call_in_reasoning",
    "log",
    "echoed_result",
    "data_without_intent",
    "unoffered_tool",
    "missing_arguments",
    "truncated",
    "xml_near_miss",
    "control_token_mention",
}

each_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [line for line in LINES if line["kind"] == kind]


def offered(line: dict[str, Any]) -> Toolset:
    return Toolset.of([TOOLS[name] for name in line["tools"]])


@pytest.mark.parametrize("format", ["given", "auto"])
@each_kind
def test_a_lookalike_is_never_given_back_as_a_call(kind: str, format: str) -> None:
    for line in of_kind(kind):
        name = line["format"] if format == "given" else format
        repaired = toolguard.repair(line["text"], offered(line), name)
        assert repaired.after.calls == (), f"{line['id']}: {line['why']}"


@each_kind
def test_a_lookalike_is_no_call_to_its_own_formats_parser(kind: str) -> None:
    """Or the model did make a call, and the line does not belong here."""
    for line in of_kind(kind):
        turn = toolguard.read_turn(line["text"], WireFormat.load(line["format"]), offered(line))
        assert turn.calls == (), line["id"]


def test_the_set_is_large_and_each_line_is_its_own() -> None:
    assert len(LINES) >= 150
    assert len({line["id"] for line in LINES}) == len(LINES)
    assert len({line["text"] for line in LINES}) == len(LINES)
    counts = Counter(line["kind"] for line in LINES)
    assert set(counts) == KINDS
    assert min(counts.values()) >= 10, counts


def test_its_lines_name_formats_and_tools_that_exist() -> None:
    assert {line["format"] for line in LINES} <= set(toolguard.format_names())
    assert {name for line in LINES for name in line["tools"]} == set(TOOLS)
    assert all(line["tools"] and line["why"] for line in LINES)


def test_most_of_them_name_a_tool_that_is_offered() -> None:
    """A set without the tools' names would be passed by anything that looks for them."""
    named = [line for line in LINES if any(name in line["text"] for name in line["tools"])]
    assert len(named) >= 0.6 * len(LINES)
