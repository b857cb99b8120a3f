"""The synthetic worlds: what they are made of, and their commands, at tiny sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import toolguard
from benchmarks.lab.cases import Case, check_disjoint, draw
from benchmarks.lab.tokenizer import build_tokenizer, render, render_answer
from benchmarks.recovery import toolguard_cases
from benchmarks.worlds import __main__ as worlds
from benchmarks.worlds.measure import MODES
from benchmarks.worlds.synthetic import WORLDS
from benchmarks.worlds.synthetic.train import held_out
from toolguard.evaluation.score import is_exact

EACH = {"one": 6, "parallel": 6, "chat": 6, "result": 6}


@pytest.fixture(scope="module", params=sorted(WORLDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def spelled(name: str) -> PreTrainedTokenizerFast:
    world = WORLDS[name]
    return build_tokenizer(0, 300, world.spelling, world.talk)


@pytest.fixture(scope="module")
def cases(name: str) -> list[Case]:
    return held_out(WORLDS[name], EACH, 0)  # type: ignore[arg-type]


def test_the_template_writes_its_format(name: str, spelled: PreTrainedTokenizerFast) -> None:
    assert toolguard.recognise(spelled).name == WORLDS[name].wire_format


def test_right_turns_are_legal_and_exact(
    name: str, spelled: PreTrainedTokenizerFast, cases: list[Case]
) -> None:
    talk = WORLDS[name].talk
    wire_format = toolguard.WireFormat.load(WORLDS[name].wire_format)
    for case, asked in zip(cases, toolguard_cases(cases), strict=True):
        prompt, text = render(spelled, case), render_answer(spelled, case, talk)
        turn = toolguard.read_turn(text, wire_format, asked.toolset, prompt=prompt)
        if case.calls:
            assert is_exact(asked, turn)
        else:
            assert turn.state == "healthy_response"
        guard = toolguard.Guard.compile(
            wire_format,
            asked.toolset,
            spelled,
            reasoning="open" if prompt.endswith("<think>\n") else "none",
        )
        ids = spelled(text).input_ids
        assert len(ids) < WORLDS[name].limit
        state = guard.start(WORLDS[name].limit)
        for token in ids:
            assert state.allows(token)
            state.accept(token)
        assert state.done


def test_one_token_holds_structure_and_content_or_more_structure(
    spelled: PreTrainedTokenizerFast, name: str, cases: list[Case]
) -> None:
    talk = WORLDS[name].talk
    used = {
        spelled.decode([token])
        for case in cases
        for token in spelled(render_answer(spelled, case, talk)).input_ids
    }
    wanted = {"mistral": {'":', ' "', ' [{"', '"}}]'}, "xml": {"<function", "=harbour", ">\n"}}
    assert not wanted[name] - used


def test_training_and_judgement_share_no_call(name: str, cases: list[Case]) -> None:
    check_disjoint(cases, 0, 500, WORLDS[name].talk)
    talk = WORLDS[name].talk
    for tool in talk.tools.values():  # or a draw would never end
        assert draw(Random(0), "held_out", "parallel", offered=[tool], talk=talk).calls


@pytest.mark.parametrize("name", ["mistral", pytest.param("xml", marks=pytest.mark.slow)])
def test_the_commands_train_break_and_judge(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = WORLDS[name]
    disease, chosen = next(iter(world.diseases.items()))
    plan = replace(chosen.plan, steps=1, prompts=1, group=2, limit=8)
    tiny = replace(
        world,
        lesson=replace(world.lesson, steps=2, cycle=1, drills=1, batch=1),
        diseases={disease: replace(chosen, plan=plan)},
        limit=8,
    )
    monkeypatch.setitem(WORLDS, name, tiny)
    folder = ["--folder", str(tmp_path)]
    for wanted in (["train", name], ["train", name, disease]):
        result = CliRunner().invoke(worlds.app, [*wanted, *folder], catch_exceptions=False)
        assert result.exit_code == 0
    asked = ["--world", name, "--count", "1", "--apart", "20", "--json", *folder]
    result = CliRunner().invoke(worlds.app, asked, catch_exceptions=False)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["checkpoint"], row["mode"]) for row in rows] == [
        (checkpoint, mode) for checkpoint in ("healthy", disease) for mode in MODES
    ]
    assert all(row["exact"]["of"] == 2 and row["kept"]["of"] == 2 for row in rows)
