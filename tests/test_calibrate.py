"""Calibration: a damaged model's odds of a call come back to those of health, and health stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from toolguard import Calibration, Profile, ProfileError, RequestError, Step, WireFormat

from .sizes import sizes

EIGHTHS = st.integers(-160, 160).map(lambda value: value / 8)  # sums of them are exact
ODDS = st.lists(EIGHTHS, min_size=50, max_size=120)


def profile_of(odds: list[float], fingerprint: str = "f") -> Profile:
    profile = Profile("hermes", ("<tool_call>",), fingerprint)
    for value in odds:
        step = Step(0, "text", "start", "x", 1, {}, 0.0, 0.0, 1, odds=value)
        profile.add([step, Step(1, "text", "text", "y", 2, {}, 0.0, 0.0, 1)])
    return profile


@given(ODDS, st.floats(-40, 40))
def test_a_healthy_model_is_left_as_it_is(odds: list[float], own: float) -> None:
    calibration = Calibration(profile_of(odds), profile_of(odds))
    found = calibration.odds(own)
    # Between two recorded odds it stays between them; recorded ones stay where they are.
    below = max((value for value in odds if value <= own), default=-float("inf"))
    above = min((value for value in odds if value >= own), default=float("inf"))
    assert below - 1e-9 <= found <= above + 1e-9


@given(ODDS, EIGHTHS, EIGHTHS)
def test_a_shift_is_taken_back(odds: list[float], shift: float, own: float) -> None:
    damaged = profile_of([value + shift for value in odds])
    healthy = Calibration(profile_of(odds), profile_of(odds))
    found = Calibration(damaged, profile_of(odds)).odds(own + shift)
    assert found == pytest.approx(healthy.odds(own), abs=1e-6)


@given(ODDS, ODDS, st.floats(-40, 40), st.floats(0, 10))
def test_the_order_of_odds_is_kept(
    damaged: list[float], healthy: list[float], own: float, more: float
) -> None:
    calibration = Calibration(profile_of(damaged), profile_of(healthy))
    assert calibration.odds(own) <= calibration.odds(own + more) + 1e-9


def test_profiles_that_cannot_calibrate_are_refused() -> None:
    enough = profile_of([0.0] * 50)
    with pytest.raises(ProfileError, match="different fingerprints"):
        Calibration(enough, profile_of([0.0] * 50, "g"))
    with pytest.raises(ProfileError, match="49 turns that decided"):
        Calibration(enough, profile_of([0.0] * 49))


def test_the_odds_survive_a_file_and_a_merge(tmp_path: Path) -> None:
    odds = [float(value) for value in range(-30, 30)]
    first, second = profile_of(odds[::2]), profile_of(odds[1::2])
    first.merge(second)
    first.save(tmp_path / "p.json")
    loaded = Profile.load(tmp_path / "p.json")
    assert loaded.decisions == 60
    for q in (0.01, 0.25, 0.5, 1.0):
        assert loaded.odds_quantile(q) == profile_of(odds).odds_quantile(q)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {
        name: AutoModelForCausalLM.from_pretrained(toolguard.checkpoint(name), dtype=torch.float32)
        for name in ("healthy", "opener_everywhere")
    }


@sizes(60, 96)
def test_replies_come_back_without_a_second_model(
    size: int, models: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    cases = toolguard.held_out()
    known, new = cases[:size], [case for case in cases[96:144] if not case.calls]
    profiles = {}
    for name, model in models.items():
        profiles[name] = Profile.of(WireFormat.load("hermes"), tokenizer)
        for turn in toolguard.answer(  # their odds are those of the first token
            model, tokenizer, known, policy="observe", trace=True, max_new_tokens=8
        ):
            assert turn.report is not None
            profiles[name].add(turn.report.steps)
    calibration = Calibration(profiles["opener_everywhere"], profiles["healthy"])
    kept = {}
    for name, given_ in (("none", None), ("calibration", calibration)):
        turns = list(
            toolguard.answer(
                models["opener_everywhere"], tokenizer, new, policy="recover", calibration=given_
            )
        )
        kept[name] = sum(not turn.calls for turn in turns) / len(new)
    assert len(new) >= 10
    assert kept["calibration"] >= 0.95 > kept["none"]
    same = Calibration(profiles["healthy"], profiles["healthy"])
    plain = toolguard.answer(models["healthy"], tokenizer, cases[: size // 5], policy="recover")
    mapped = toolguard.answer(
        models["healthy"], tokenizer, cases[: size // 5], policy="recover", calibration=same
    )
    assert [turn.raw for turn in plain] == [turn.raw for turn in mapped]


def test_the_odds_are_the_models_own(models: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    case = toolguard.held_out()[0]
    turn = toolguard.generate(
        models["healthy"], tokenizer, case.messages, case.toolset, policy="observe", trace=True
    )
    prompt = tokenizer.apply_chat_template(
        case.messages, tools=[*case.toolset.definitions], add_generation_prompt=True, tokenize=False
    )
    with torch.inference_mode():
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        logits = models["healthy"](ids).logits[0, -1]
    added = [*tokenizer.get_added_vocab().values()]
    content = logits.clone()
    content[added] = float("-inf")
    opener = tokenizer.convert_tokens_to_ids("<tool_call>")
    steps = turn.report.steps
    assert steps[0].odds == pytest.approx(float(logits[opener] - content.logsumexp(-1)), abs=1e-3)
    assert [step.odds for step in steps[1:]] == [None] * (len(steps) - 1)


def test_a_calibration_serves_recover_alone(
    models: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    case = toolguard.held_out()[0]
    same = profile_of([0.0] * 50)
    with pytest.raises(RequestError, match="a calibration serves policy 'recover'"):
        toolguard.generate(
            models["healthy"], tokenizer, case.messages, case.toolset,
            calibration=Calibration(same, same),
        )  # fmt: skip
