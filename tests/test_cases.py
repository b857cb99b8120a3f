"""The case format, and which turns are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toolguard
from toolguard import WireFormat
from toolguard.evaluation.score import is_exact

HERMES = WireFormat.load("hermes")
TOOLS = [
    {
        "name": "send",
        "parameters": {
            "properties": {
                "to": {"type": "string"},
                "copies": {"type": "number"},
                "urgent": {"type": "boolean"},
                "extra": {},
            },
            "required": ["to"],
        },
    },
    {"name": "stop", "parameters": {}},
]
ROW = {
    "tools": TOOLS,
    "messages": [{"role": "user", "content": "Write to Ann."}],
    "calls": [{"name": "send", "arguments": {"to": "Ann"}}],
}


def read(tmp_path: Path, *rows: dict[str, Any]) -> toolguard.Cases:
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return toolguard.read_cases(path)


def exact(case: toolguard.Case, *calls: tuple[str, Any]) -> bool:
    text = "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"
        for name, arguments in calls
    )
    return is_exact(case, toolguard.read_turn(text or "No.", HERMES, case.toolset))


def test_what_is_optional_has_a_default(tmp_path: Path) -> None:
    [case] = read(tmp_path, ROW)
    assert (case.id, case.kind, case.reply, case.order) == ("1", "", None, "given")
    assert case.acceptable == ()


def test_other_line_separators_are_part_of_a_text(tmp_path: Path) -> None:
    said = "one\u2028two\x85three"
    [case] = read(tmp_path, {**ROW, "messages": [{"role": "user", "content": said}]})
    assert case.messages[0]["content"] == said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": ["hi"]}, "each of 'messages'"),
        ({"tools": 3}, "line 1: .*int"),
        ({"order": "some"}, "'order' is 'some': give 'given' or 'any'"),
        ({"reply": 3}, "'reply' is int: give text or null"),
        ({"calls": [{"name": "call", "arguments": {}}]}, "'call', which is not among the tools"),
        ({"calls": [{"name": "send", "arguments": {}}]}, "violates its schema: arguments: 'to'"),
        ({"calls": [{"name": "send", "arguments": "{}"}]}, "'arguments' of a call is str"),
        ({"acceptable": [{}, {}]}, "one object for each expected call"),
        ({"acceptable": [3]}, "an entry of 'acceptable'"),
        ({"acceptable": [{"arguments": {"to": "Bo"}}]}, "no lists of values by name"),
        ({"acceptable": [{"omittable": "to"}]}, "'omittable' is no list"),
        ({"acceptable": [{"omittable": [[]]}]}, "'omittable' is no list"),
        ({"acceptable": [{"arguments": {"urgent": [True]}}]}, "name it in 'omittable'"),
    ],
)
def test_a_broken_case_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(toolguard.CaseError, match=rf"cases\.jsonl, line 1: .*{message}|{message}"):
        read(tmp_path, {**ROW, **change})


def test_an_id_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(toolguard.CaseError, match=r"cases\.jsonl: two cases have the id 'a'"):
        read(tmp_path, {**ROW, "id": "a"}, {**ROW, "id": "a"})


def test_what_is_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(toolguard.CaseError, match="line 1: no case: a line has 'tools'"):
        read(tmp_path, {"prompt": "x"})
    with pytest.raises(toolguard.CaseError, match="line 1: list; write one JSON object"):
        read(tmp_path, [])  # type: ignore[arg-type]
    with pytest.raises(toolguard.CaseError, match="cannot read the case file"):
        toolguard.read_cases(tmp_path / "none.jsonl")
    (tmp_path / "sub").mkdir()
    (tmp_path / "cases.jsonl").unlink()
    with pytest.raises(toolguard.CaseError, match=r"no \.json or .*folders in it: sub"):
        toolguard.read_cases(tmp_path)


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**ROW, "id": name}))
    assert [case.id for case in toolguard.read_cases(str(tmp_path))] == ["a", "b"]


def test_a_row_known_to_violate_its_schema_is_left_out(tmp_path: Path) -> None:
    broken = {**ROW, "calls": [{"name": "send", "arguments": {}}], "schema_valid": False}
    cases = read(tmp_path, ROW, broken)
    assert len(cases) == 1
    assert cases.left_out == {"the expected call violates its tool's schema": 1}


def test_other_names_of_calls_and_kind_are_read(tmp_path: Path) -> None:
    row = {"expected_calls": ROW["calls"], "category": "simple", "notes": []}
    [case] = read(tmp_path, {key: ROW[key] for key in ("tools", "messages")} | row)
    assert (case.kind, case.calls) == ("simple", tuple(ROW["calls"]))


def test_exact_tells_types_apart(tmp_path: Path) -> None:
    arguments = {"to": "Ann", "copies": 1, "extra": True}
    [case] = read(tmp_path, {**ROW, "calls": [{"name": "send", "arguments": arguments}]})
    assert exact(case, ("send", arguments))
    assert exact(case, ("send", {**arguments, "copies": 1.0}))
    assert not exact(case, ("send", {**arguments, "extra": 1}))
    assert not exact(case, ("send", {**arguments, "extra": [True]}))
    assert not exact(case, ("send", {**arguments, "urgent": False}))
    assert not exact(case, ("send", {"to": "Ann"}))
    assert not exact(case, ("stop", {}))
    assert not exact(case)
    assert not exact(case, ("send", arguments), ("stop", {}))


def test_acceptable_values_and_omittable_arguments(tmp_path: Path) -> None:
    acceptable = {
        "arguments": {"to": ["ann@x.example", "Anna"], "extra": [1, None], "urgent": [False]},
        "omittable": ["copies", "extra", "urgent"],
    }
    call = {"name": "send", "arguments": {"to": "Ann", "copies": 2}}
    [case] = read(tmp_path, {**ROW, "calls": [call], "acceptable": [acceptable]})
    for to in ("Ann", "ann@x.example", "Anna"):
        assert exact(case, ("send", {"to": to}))
    assert exact(case, ("send", {"to": "Ann", "copies": 2.0, "urgent": False, "extra": None}))
    assert exact(case, ("send", {"to": "Ann", "extra": 1}))
    assert not exact(case, ("send", {"to": "Ann", "extra": True}))
    assert not exact(case, ("send", {"to": "Ann", "copies": 3}))
    assert not exact(case, ("send", {"to": "Ann", "urgent": True}))


def test_order_matters_unless_it_does_not(tmp_path: Path) -> None:
    calls = [("send", {"to": "Ann"}), ("send", {"to": "Bo"}), ("stop", {})]
    row = {**ROW, "calls": [{"name": name, "arguments": given} for name, given in calls]}
    given, free = read(tmp_path, {**row, "id": "1"}, {**row, "id": "2", "order": "any"})
    assert exact(given, *calls)
    assert exact(free, *calls)
    assert not exact(given, *reversed(calls))
    assert exact(free, *reversed(calls))
    assert not exact(free, calls[0], calls[0], calls[2])
    assert not exact(free, *calls[:2])


def test_any_order_finds_the_one_assignment(tmp_path: Path) -> None:
    """The first call made fits both expected ones, the second only the first."""
    calls = [{"name": "send", "arguments": {"to": to}} for to in ("Ann", "Bo")]
    acceptable = [{"arguments": {"to": ["Bo", "Cy"]}}, {}]
    [case] = read(tmp_path, {**ROW, "calls": calls, "acceptable": acceptable, "order": "any"})
    assert exact(case, ("send", {"to": "Bo"}), ("send", {"to": "Cy"}))
    assert exact(case, ("send", {"to": "Cy"}), ("send", {"to": "Bo"}))
    assert exact(case, ("send", {"to": "Bo"}), ("send", {"to": "Bo"}))
    assert not exact(case, ("send", {"to": "Cy"}), ("send", {"to": "Cy"}))
