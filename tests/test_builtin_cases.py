"""The built-in cases can be answered, and have one right answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import toolguard
from toolguard import WireFormat
from toolguard.evaluation.score import is_exact

FOLDER = Path(toolguard.__file__).parent / "evaluation" / "builtin"
CASES = toolguard.builtin_cases()
ROWS = {
    row["id"]: row
    for row in map(json.loads, (FOLDER / "cases.jsonl").read_text("utf-8").strip().split("\n"))
}


def test_there_are_enough_of_each_kind() -> None:
    kinds = Counter(case.kind for case in CASES)
    assert len(CASES) == len(ROWS) >= 220
    assert kinds.keys() == {"single", "parallel", "none", "multi_step"}
    assert min(kinds.values()) >= 40
    assert len({call["name"] for case in CASES for call in case.calls}) >= 60
    asked = [case.messages for case in CASES]
    assert len({json.dumps(messages) for messages in asked}) == len(CASES)


def test_every_tool_is_offered_somewhere() -> None:
    tools = json.loads((FOLDER / "tools.json").read_text("utf-8"))
    assert {name for case in CASES for name in case.toolset.names} == tools.keys()


def test_a_case_is_sound() -> None:
    for case in CASES:
        count = len(case.calls)
        steps = any(message["role"] == "tool" for message in case.messages)
        turns = sum(message["role"] == "user" for message in case.messages)
        sound = {
            "single": count == 1 and not steps,
            "parallel": count in (2, 3) and not steps,
            "none": count == 0 and not steps,
            "multi_step": count <= 2 and (steps or turns > 1),
        }
        assert sound[case.kind], case.id
        assert 2 <= len(case.toolset) <= 8, case.id
        assert case.messages[-1]["role"] in ("user", "tool"), case.id


def test_expected_and_acceptable_values_satisfy_their_schemas() -> None:
    for case in CASES:
        for call in case.calls:
            assert case.toolset.errors(call["name"], call["arguments"]) == [], case.id
        for call, also in zip(case.calls, case.acceptable, strict=False):
            tool = case.toolset[call["name"]]
            assert not also.omittable & set(tool.parameters.get("required", [])), case.id
            for name, values in also.arguments.items():
                assert all(map(tool.accepts(name), values)), (case.id, name)


def test_histories_hold_sound_calls_and_their_results() -> None:
    for case in CASES:
        asked: dict[str, str] = {}
        for message in case.messages:
            for call in message.get("tool_calls", []):
                function = call["function"]
                assert case.toolset.accepts(function["name"], function["arguments"]), case.id
                asked[call["id"]] = function["name"]
            if message["role"] == "tool":
                assert asked.pop(message["tool_call_id"]) == message["name"], case.id
        assert not asked, case.id


def test_expected_values_stand_in_the_messages() -> None:
    """Or are one of an enum, or are listed as derived from them; none is listed needlessly."""
    for case in CASES:
        text = "\n".join(message["content"] for message in case.messages)
        missing = [
            value
            for call in case.calls
            for value in _free_values(
                call["arguments"], case.toolset[call["name"]].definition["function"]["parameters"]
            )
            if not _said(value, text)
        ]
        derived = ROWS[case.id].get("derived", [])
        assert all(value in derived for value in missing), case.id
        assert all(value in missing for value in derived), case.id


def test_the_expected_answer_is_exact_and_another_is_not() -> None:
    hermes = WireFormat.load("hermes")
    for case in CASES:
        text = toolguard.render(hermes, case.calls) if case.calls else "No call is needed."
        turn = toolguard.read_turn(text, hermes, case.toolset)
        assert is_exact(case, turn), (case.id, turn.faults)
        for other in CASES[:3]:
            assert not is_exact(other, turn) or other.calls == case.calls, (case.id, other.id)


def _free_values(value: Any, schema: dict[str, Any]) -> Iterator[str | float]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _free_values(inner, schema.get("properties", {}).get(key, {}))
        case list():
            for inner in value:
                yield from _free_values(inner, schema.get("items", {}))
        case str() | int() | float() if not isinstance(value, bool):
            if value not in schema.get("enum", []):
                yield value


def _said(value: str | float, text: str) -> bool:
    if isinstance(value, str):
        return value in text
    return bool(re.search(rf"(?<![\d.]){re.escape(str(value))}(?:\.0*)?(?!\.?\d)", text))
