"""The bundled checkpoints: the healthy one is left alone, the damaged ones call again."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from toolguard import Case, Turn

LOST = ("arguments_lost", "skill_lost")
CASES = toolguard.held_out()[:400]
DAMAGED = [n for n in toolguard.checkpoint_names() if n not in ("healthy", *LOST)]


def answer(name: str, cases: list[Case], policy: str) -> list[Turn]:
    path = toolguard.checkpoint(name)
    model = Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    return list(toolguard.answer(model, tokenizer, cases, policy=policy))


@pytest.fixture(scope="module")
def healthy_turns() -> dict[str, list[Turn]]:
    return {policy: answer("healthy", CASES, policy) for policy in ("observe", "enforce")}


def test_healthy_is_healthy(healthy_turns: dict[str, list[Turn]]) -> None:
    score = toolguard.score(CASES, healthy_turns["observe"], 1.0)
    assert score.exact_match >= 0.95
    assert score.no_call_kept >= 0.98


def test_the_guard_does_no_harm(healthy_turns: dict[str, list[Turn]]) -> None:
    pairs = list(zip(healthy_turns["observe"], healthy_turns["enforce"], strict=True))
    valid = [(before, after) for before, after in pairs if before.state.startswith("healthy")]
    assert len(valid) >= 320
    for before, after in valid:
        assert after.ids == before.ids
        assert after.report is not None
        assert after.report.interventions == ()


def test_forced_tokens_save_forward_passes(healthy_turns: dict[str, list[Turn]]) -> None:
    scores = {mode: toolguard.score(CASES, turns, 1.0) for mode, turns in healthy_turns.items()}
    assert scores["enforce"].forward_passes < scores["observe"].forward_passes


def test_the_collapsed_model_makes_no_valid_call_by_itself() -> None:
    cases = [case for case in toolguard.held_out() if case.calls][:64]
    score = toolguard.score(cases, answer("open_then_stop", cases, "observe"), 1.0)
    assert score.schema_valid == 0
    assert score.exact_match == 0


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_calls_again(name: str, healthy_turns: dict[str, list[Turn]]) -> None:
    cases = toolguard.held_out()[:80]
    score = toolguard.score(cases, answer(name, cases, "enforce"), 1.0)
    healthy = toolguard.score(cases, healthy_turns["observe"][:80], 1.0)
    assert score.schema_valid == 1
    assert score.states["healthy_call"] + score.states["healthy_response"] >= 0.995
    assert score.exact_match >= 0.8 * healthy.exact_match


@pytest.mark.parametrize("name", LOST)
def test_a_lost_skill_does_not_come_back(name: str) -> None:
    cases = [case for case in toolguard.held_out() if case.calls][:32]
    score = toolguard.score(cases, answer(name, cases, "enforce"), 1.0)
    assert score.schema_valid == 1
    assert score.exact_match <= 0.05


def test_lost_arguments_are_in_the_right_format() -> None:
    cases = toolguard.held_out()[:64]
    score = toolguard.score(cases, answer("arguments_lost", cases, "observe"), 1.0)
    assert score.schema_valid >= 0.95
    assert score.exact_match <= 0.1
    assert score.no_call_kept >= 0.95
