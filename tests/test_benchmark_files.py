"""BFCL's and ACEBench's files, in small ones of our own that are laid out as theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toolguard

PERIMETER = {
    "name": "shape.perimeter",
    "description": "The way around a shape.",
    "parameters": {
        "type": "dict",
        "properties": {
            "sides": {"type": "tuple", "items": {"type": "float"}},
            "unit": {"type": "string"},
            "type": {"type": "any"},
            "box": {
                "type": "dict",
                "properties": {"width": {"type": "integer"}, "label": {"type": "string"}},
                "required": ["width"],
            },
            "marks": {"type": "array", "items": {"type": "dict"}},
        },
        "required": ["sides"],
    },
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def bfcl(folder: Path, name: str, *truths: Any, question: Any = None, **change: Any) -> Path:
    """A file with a question for each truth; without any, one question and no answers."""
    asked = question or [[{"role": "user", "content": "How far is it around?"}]]
    rows = [
        {"id": f"{name}_{n}", "question": asked, "function": [PERIMETER], **change}
        for n in range(max(len(truths), 1))
    ]
    if truths:
        answers = [{"id": f"{name}_{n}", "ground_truth": truth} for n, truth in enumerate(truths)]
        write(folder / "possible_answer" / f"BFCL_v4_{name}.json", answers)
    return write(folder / f"BFCL_v4_{name}.json", rows)


def perimeter(**arguments: Any) -> dict[str, Any]:
    return {"shape.perimeter": {"sides": [[3, 4.5]], **arguments}}


def test_bfcls_dialect_becomes_json_schema(tmp_path: Path) -> None:
    [case] = toolguard.read_cases(bfcl(tmp_path, "simple_python", [perimeter()]))
    [tool] = case.toolset.definitions
    parameters = tool["function"]["parameters"]
    assert tool["function"]["name"] == "shape_perimeter"
    assert parameters["type"] == parameters["properties"]["box"]["type"] == "object"
    assert parameters["properties"]["sides"] == {"type": "array", "items": {"type": "number"}}
    assert parameters["properties"]["type"] == {}
    assert case.calls == ({"name": "shape_perimeter", "arguments": {"sides": [3, 4.5]}},)
    assert (case.id, case.kind, case.order) == ("simple_python_0", "simple_python", "any")


def test_bfcls_choices_are_acceptable_values(tmp_path: Path) -> None:
    truth = [perimeter(unit=["", "cm", "centimetre"], type=["", None])]
    [case] = toolguard.read_cases(bfcl(tmp_path, "simple_python", truth))
    [also] = case.acceptable
    assert case.calls[0]["arguments"] == {"sides": [3, 4.5]}
    assert also.arguments["unit"] == ("cm", "centimetre")
    assert also.arguments["type"] == (None,)
    assert also.omittable == {"unit", "type"}


def test_bfcls_objects_are_choices_by_key(tmp_path: Path) -> None:
    truth = [perimeter(box=[{"width": [2, 3], "label": ["", "a"]}], marks=[[{"x": [1, 2]}]])]
    [case] = toolguard.read_cases(bfcl(tmp_path, "simple_python", truth))
    [also] = case.acceptable
    boxes = [{"width": w, **label} for w in (2, 3) for label in ({}, {"label": "a"})]
    assert list(also.arguments["box"]) == boxes
    assert also.arguments["marks"] == ([{"x": 1}], [{"x": 2}])
    assert case.calls[0]["arguments"]["box"] == {"width": 2}


def test_bfcls_parallel_calls_are_all_expected(tmp_path: Path) -> None:
    truth = [perimeter(unit=["cm"]), perimeter(unit=["mm"])]
    [case] = toolguard.read_cases(bfcl(tmp_path, "live_parallel", truth))
    assert [call["arguments"]["unit"] for call in case.calls] == ["cm", "mm"]


def test_bfcls_irrelevance_expects_no_call(tmp_path: Path) -> None:
    [case] = toolguard.read_cases(bfcl(tmp_path, "live_irrelevance"))
    assert (case.kind, case.calls) == ("live_irrelevance", ())


def test_what_bfcls_schemas_refuse_is_left_out(tmp_path: Path) -> None:
    truths = [[perimeter()], [perimeter(unit=[7])], [{"shape.area": {}}], [perimeter(sides=[3])]]
    cases = toolguard.read_cases(bfcl(tmp_path, "multiple", *truths))
    assert [case.id for case in cases] == ["multiple_0"]
    assert cases.left_out == {"the expected call violates its tool's schema": 3}
    odd = {"name": "odd", "parameters": {"type": "dict", "properties": {"x": {"type": "HashMap"}}}}
    cases = toolguard.read_cases(bfcl(tmp_path, "multiple", [{}], function=[odd]))
    assert cases.left_out == {"a tool's schema is no JSON Schema": 1}
    turns = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]
    cases = toolguard.read_cases(bfcl(tmp_path, "multiple", [perimeter()], question=turns))
    assert cases.left_out == {"the question has several turns": 1}


def test_bfcls_other_categories_are_refused_alone_and_left_out_of_a_folder(tmp_path: Path) -> None:
    names = ("multi_turn_base", "memory", "web_search", "simple_java", "javascript")
    for name in (*names, "live_relevance"):
        path = bfcl(tmp_path, name, question="x")
        with pytest.raises(toolguard.CaseError, match=rf"BFCL_v4_{name}\.json is not read: it"):
            toolguard.read_cases(path)
    bfcl(tmp_path, "simple_python", [perimeter()])
    cases = toolguard.read_cases(tmp_path)
    assert [case.kind for case in cases] == ["simple_python"]
    assert len(cases.left_out) == len(names) + 1
    renamed = (tmp_path / "BFCL_v4_simple_java.json").rename(tmp_path / "mine.json")
    write(renamed, [{"id": "simple_java_0", "question": [["x"]], "function": []}])
    with pytest.raises(toolguard.CaseError, match=r"mine\.json, line 1 \(simple_java\) is not"):
        toolguard.read_cases(renamed)


def test_bfcl_without_its_answers_is_refused(tmp_path: Path) -> None:
    path = bfcl(tmp_path, "simple_python", [perimeter()])
    answers = tmp_path / "possible_answer" / path.name
    with pytest.raises(toolguard.CaseError, match="holds the answers: give the file"):
        toolguard.read_cases(answers)
    write(answers, [{"id": "simple_python_7", "ground_truth": []}])
    with pytest.raises(toolguard.CaseError, match=r"possible_answer/.* has no 'simple_python_0'"):
        toolguard.read_cases(path)
    write(answers, [{"id": "simple_python_0", "ground_truth": [{"shape.perimeter": {"unit": 3}}]}])
    with pytest.raises(toolguard.CaseError, match="'simple_python_0' is no list of calls"):
        toolguard.read_cases(path)
    write(path, [{"id": "simple_python_0", "question": [[]], "function": [PERIMETER]}])
    with pytest.raises(toolguard.CaseError, match="line 1: BFCL has an 'id', a list of turns"):
        toolguard.read_cases(path)
    path = bfcl(tmp_path, "simple_python", [perimeter()])
    answers.unlink()
    with pytest.raises(toolguard.CaseError, match=r"BFCL keeps them in .*possible_answer"):
        toolguard.read_cases(path)


OVEN = {
    "name": "Oven_preheat",
    "description": "Heats an oven.",
    "parameters": {
        "type": "object",
        "properties": {
            "oven": {"type": "object", "properties": {"id": {"type": "string"}}},
            "celsius": {"type": "number"},
            "trays": {"type": "list(string)"},
            "fan": {"type": "boolean"},
        },
        "required": ["celsius"],
    },
}


def ace(folder: Path, name: str, question: str, truth: Any, **change: Any) -> Path:
    row = {"id": f"{name}_0", "question": question, "function": [OVEN], "time": "", **change}
    answer = {"id": f"{name}_0", "ground_truth": truth}
    write(folder / "possible_answer" / f"data_{name}.json", [answer])
    return write(folder / f"data_{name}.json", [row])


def test_acebenchs_questions_become_messages(tmp_path: Path) -> None:
    question = (
        "user: Heat oven A.\nsystem: How hot?\nuser: 180 degrees,\nplease.\n"
        'system: [Oven_preheat(oven={"id": "A"}, celsius=180, trays=["top"], fan=true)]\n'
        "system: It is heating.\nuser: 200 rather.\n"
    )
    truth = {"Oven_preheat": {"oven": {"id": "A"}, "celsius": 200}}
    name = "normal_multi_turn_user_adjust_0"
    [case] = toolguard.read_cases(
        ace(tmp_path, name, question, truth, time="Today is Monday.", profile="{'name': 'Jo'}")
    )
    arguments = {"oven": {"id": "A"}, "celsius": 180, "trays": ["top"], "fan": True}
    function = {"name": "Oven_preheat", "arguments": arguments}
    made = {"id": "call00001", "type": "function", "function": function}
    result = {"tool_call_id": "call00001", "name": "Oven_preheat", "content": "It is heating."}
    assert list(case.messages) == [
        {"role": "system", "content": "Today is Monday.\n{'name': 'Jo'}"},
        {"role": "user", "content": "Heat oven A."},
        {"role": "assistant", "content": "How hot?"},
        {"role": "user", "content": "180 degrees,\nplease."},
        {"role": "assistant", "content": "", "tool_calls": [made]},
        {"role": "tool", **result},
        {"role": "user", "content": "200 rather."},
    ]
    assert case.calls == ({"name": "Oven_preheat", "arguments": truth["Oven_preheat"]},)
    assert case.kind == "normal_multi_turn_user_adjust"


@pytest.mark.parametrize("text", ["[Oven_preheat(180)]", "[Oven(celsius=1)]", "[celsius", "[1, x]"])
def test_what_is_no_call_stays_text(tmp_path: Path, text: str) -> None:
    question = f"user: Heat it.\nsystem: {text}\nuser: And?\n"
    truth = {"Oven_preheat": {"celsius": 1}}
    [case] = toolguard.read_cases(ace(tmp_path, "normal_preference", question, truth))
    assert case.messages[1] == {"role": "assistant", "content": text}


def test_acebenchs_tool_that_is_called_twice(tmp_path: Path) -> None:
    truth = {"Oven_preheat_1": {"celsius": 90}, "Oven_preheat_2": {"celsius": 95.5}}
    path = ace(tmp_path, "normal_single_turn_parallel_function", "user: Heat both.", truth)
    [case] = toolguard.read_cases(path)
    assert [call["name"] for call in case.calls] == ["Oven_preheat"] * 2
    assert case.order == "any"


def test_acebenchs_special_cases_expect_no_call(tmp_path: Path) -> None:
    truth = {"Oven_preheat": ["celsius"]}
    path = ace(tmp_path, "special_incomplete", "user: Heat the oven.", truth)
    [case] = toolguard.read_cases(path)
    assert case.calls == ()
    assert case.messages == ({"role": "user", "content": "Heat the oven."},)


def test_what_acebench_has_no_case_for(tmp_path: Path) -> None:
    path = ace(tmp_path, "agent_multi_step", "Heat it.", {})
    with pytest.raises(toolguard.CaseError, match=r"data_agent_multi_step\.json is not read"):
        toolguard.read_cases(path)
    ace(tmp_path, "normal_atom_enum", "user: Heat it.", {"Oven_preheat": {"celsius": "hot"}})
    cases = toolguard.read_cases(tmp_path)
    assert not cases
    assert cases.left_out["the expected call violates its tool's schema"] == 1
    assert len(cases.left_out) == 2
    path = ace(tmp_path, "normal_atom_list", "user: Heat it.", "none")
    assert toolguard.read_cases(path).left_out == {"the answer is none call by call": 1}
    path = ace(tmp_path, "normal_atom_list", "user: Heat it.\nsystem: No.", {})
    assert list(toolguard.read_cases(path).left_out) == [
        "the question ends with the assistant's words"
    ]
    write(path, [{"id": 3, "question": "user: Heat it.", "function": []}])
    with pytest.raises(toolguard.CaseError, match="line 1: ACEBench has an 'id', text as"):
        toolguard.read_cases(path)
    path = ace(tmp_path, "normal_atom_list", "user: Heat it.", {})
    (tmp_path / "possible_answer" / path.name).unlink()
    with pytest.raises(toolguard.CaseError, match="ACEBench keeps them in"):
        toolguard.read_cases(path)
