"""The bundled checkpoints: the healthy one is left alone, the damaged ones call again."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from toolguard import Case, Score, Turn

from .sizes import sizes

LOST = ("arguments_lost", "skill_lost")
DAMAGED = [n for n in toolguard.checkpoint_names() if n not in ("healthy", *LOST)]


def first(count: int, calling: bool = False) -> list[Case]:
    """The first held-out cases, or those of them that need a call."""
    return [case for case in toolguard.held_out() if case.calls or not calling][:count]


@cache
def answer(name: str, count: int, policy: str, calling: bool) -> list[Turn]:
    path = toolguard.checkpoint(name)
    model = Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    return list(toolguard.answer(model, tokenizer, first(count, calling), policy=policy))


def scored(name: str, count: int, policy: str, calling: bool = False) -> Score:
    return toolguard.score(first(count, calling), answer(name, count, policy, calling), 1.0)


@sizes(40, 400)
def test_healthy_is_healthy(size: int) -> None:
    score = scored("healthy", size, "observe")
    assert score.exact_match >= 0.95
    assert score.no_call_kept >= 0.98


@sizes(40, 400)
def test_the_guard_does_no_harm(size: int) -> None:
    turns = [answer("healthy", size, policy, False) for policy in ("observe", "enforce")]
    pairs = list(zip(*turns, strict=True))
    valid = [(before, after) for before, after in pairs if before.state.startswith("healthy")]
    assert len(valid) >= 0.8 * size
    for before, after in valid:
        assert after.ids == before.ids
        assert after.report is not None
        assert after.report.interventions == ()


def test_forced_tokens_save_forward_passes() -> None:
    observed, enforced = (scored("healthy", 40, policy) for policy in ("observe", "enforce"))
    assert enforced.forward_passes < observed.forward_passes


@sizes(8, 64)
def test_the_collapsed_model_makes_no_valid_call_by_itself(size: int) -> None:
    score = scored("open_then_stop", size, "observe", calling=True)
    assert score.schema_valid == 0
    assert score.exact_match == 0


@sizes(16, 80)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_calls_again(name: str, size: int) -> None:
    score = scored(name, size, "enforce")
    known = answer("healthy", max(40, size), "observe", False)
    healthy = toolguard.score(first(size), known[:size], 1.0)
    assert score.schema_valid == 1
    assert score.states["healthy_call"] + score.states["healthy_response"] >= 0.995
    assert score.exact_match >= 0.8 * healthy.exact_match


@sizes(8, 32)
@pytest.mark.parametrize("name", LOST)
def test_a_lost_skill_does_not_come_back(name: str, size: int) -> None:
    score = scored(name, size, "enforce", calling=True)
    # Calls that its budget ends are none; its format is sound.
    assert score.schema_valid == score.states["healthy_call"]
    assert score.states["collapsed"] == 0
    assert score.exact_match <= 0.05


@sizes(16, 64)
def test_lost_arguments_are_in_the_right_format(size: int) -> None:
    score = scored("arguments_lost", size, "observe")
    assert score.schema_valid >= 0.95
    assert score.exact_match <= 0.1
    assert score.no_call_kept >= 0.95
