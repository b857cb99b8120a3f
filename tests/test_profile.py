"""Profiles: recorded, merged, saved, and what they say of a mass."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Profile, ProfileError, Step, WireFormat
from toolguard.decoding import reading
from toolguard.policy.profile import GATE, binomial_bound

CONTROLS = ("<tool_call>", "</tool_call>", "<|im_end|>")


def step(mass: float, control: str = "<|im_end|>", illegal: float = 0.0, **place: Any) -> Step:
    place = {"region": "call", "position": "opened", **place}
    masses = {control: mass} if mass > 0 else {}
    return Step(
        0, token="x", token_id=1, masses=masses, illegal=illegal, pressure=0.0, rank=1, **place
    )


def profile_of(masses: list[float]) -> Profile:
    profile = Profile("hermes", CONTROLS, "f")
    for mass in masses:
        profile.add([step(mass)])
    return profile


# what is nearer to 1 than the gate counts as 1: see below
MASS = st.floats(0, 255 / 256, width=32) | st.just(1.0)
MASSES = st.lists(MASS, min_size=1, max_size=60)


@given(MASSES, MASS)
def test_p_values_are_conformal(masses: list[float], mass: float) -> None:
    # so few masses are kept one by one: no rank error
    profile = profile_of(masses)
    reached = sum(other >= mass for other in masses)
    p = profile.p_value("<|im_end|>", "call", "opened", mass)
    assert p == (1 + reached) / (len(masses) + 1)
    assert profile.count("call", "opened") == profile.turns == len(masses)


@given(MASSES, st.floats(0, 1))
def test_p_values_are_super_uniform_on_exchangeable_masses(masses: list[float], u: float) -> None:
    # each of the masses is the new one as often as any other
    small = 0
    for index, mass in enumerate(masses):
        profile = profile_of(masses[:index] + masses[index + 1 :])
        small += profile.p_value("<|im_end|>", "call", "opened", mass) <= u
    assert small <= u * len(masses) + 1e-9


@given(MASSES, st.floats(0, 1))
def test_quantiles_are_masses_that_a_share_of_the_steps_does_not_exceed(
    masses: list[float], q: float
) -> None:
    value = profile_of(masses).quantile("<|im_end|>", "call", "opened", q)
    assert sum(mass <= value for mass in masses) >= q * len(masses) - 1e-6
    assert value in (0.0, *masses)


@given(MASSES, MASSES, MASS)
def test_a_merged_profile_is_that_of_the_union(
    left: list[float], right: list[float], mass: float
) -> None:
    merged = profile_of(left)
    merged.merge(profile_of(right))
    whole = profile_of(left + right)
    assert merged.turns == whole.turns
    for control in CONTROLS:
        assert merged.p_value(control, "call", "opened", mass) == whole.p_value(
            control, "call", "opened", mass
        )


def test_many_masses_are_within_the_rank_error_and_never_below_it() -> None:
    masses = [(7919 * i % 20011 + 1) / 20035 for i in range(20011)]
    parts = [profile_of(masses[first::4]) for first in range(4)]
    for part in parts[1:]:
        parts[0].merge(part)
    for mass in (0.5, 0.9, 0.99, 0.999, 0.9999):
        exact = (1 + sum(other >= mass for other in masses)) / (len(masses) + 1)
        p = parts[0].p_value("<|im_end|>", "call", "opened", mass)
        # the margin is three standard deviations; the sketch draws its own random numbers
        assert exact * 0.99 <= p <= exact * 1.1
    top = parts[0].p_value("<|im_end|>", "call", "opened", max(masses))
    assert top == 2 / (len(masses) + 1)


def test_a_model_that_is_surer_of_what_it_was_sure_of_is_not_unusual() -> None:
    profile = profile_of([0.9991, 0.9995])
    assert profile.p_value("<|im_end|>", "call", "opened", 0.99999) == 1
    assert profile.sign_bound(("<|im_end|>", "opened", "mass"), 1.0, 0.05) == 1


def test_what_was_never_seen_says_nothing() -> None:
    profile = profile_of([0.5])
    assert profile.p_value("<|im_end|>", "text", "text", 1.0) == 1
    assert math.isnan(profile.quantile("<|im_end|>", "text", "text", 0.5))
    assert profile.p_value("<tool_call>", "call", "opened", 0.2) == 1 / 2
    assert profile.quantile("<tool_call>", "call", "opened", 0.999) == 0
    assert Profile.default().p_value("<|im_end|>", "text", "text", 1.0) == 1


@given(st.integers(1, 400), st.data(), st.floats(1e-6, 0.5))
def test_the_binomial_bound_is_one(n: int, data: st.DataObject, risk: float) -> None:
    found = data.draw(st.integers(0, n))
    p = binomial_bound(found, n, risk)
    assert found / n <= p <= 1
    if p < 1:
        tail = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(found + 1))
        assert tail <= risk * (1 + 1e-6)


def test_a_profile_is_saved_and_loaded(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    wire_format = WireFormat.load("hermes")
    profile = Profile.of(wire_format, tokenizer)
    for index in range(300):
        steps = [
            step(0.9, "<tool_call>", region="text", position="start"),
            step((index % 97) / 100, illegal=(index % 7) / 100),
        ]
        profile.add(steps)
    profile.save(path := tmp_path / "profile.json")
    loaded = Profile.load(path, wire_format, tokenizer)
    assert loaded.to_json() == profile.to_json()
    assert loaded.places == (("text", "start"), ("call", "opened"))
    for mass in (0.0, 0.3, 0.95, 1.0):
        assert loaded.p_value("<|im_end|>", "call", "opened", mass) == profile.p_value(
            "<|im_end|>", "call", "opened", mass
        )
    shown = json.loads(path.read_text())["masses"][0]
    assert shown["control"] == "<tool_call>"
    assert shown["quantiles"]["0.5"] == pytest.approx(0.9)
    loaded.merge(profile)
    assert loaded.turns == 600


def damaged(content: dict[str, Any]) -> str:
    content["masses"][0]["sketch"] = content["masses"][0]["sketch"][:-8] + "AAAAAAA="
    return json.dumps(content)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (lambda content: "{", "cannot read"),
        (lambda content: "[]", "is no profile"),
        (lambda content: json.dumps({**content, "toolguard_profile": 3}), "version 3"),
        (lambda content: json.dumps({**content, "turns": 7}), "checksum"),
        (damaged, "checksum"),
    ],
)
def test_a_broken_profile_is_refused(
    tmp_path: Path, written: Callable[[dict[str, Any]], str], message: str
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(written(profile_of([0.5]).to_json()))
    with pytest.raises(ProfileError, match=message):
        Profile.load(path)


def test_a_profile_of_another_model_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    wire_format = WireFormat.load("hermes")
    profile = Profile.of(wire_format, tokenizer)
    profile.save(path := tmp_path / "profile.json")
    assert Profile.load(path, wire_format, tokenizer).fingerprint == profile.fingerprint
    with pytest.raises(ProfileError, match="writes 'kimi_k2'"):
        Profile.load(path, WireFormat.load("kimi_k2"))
    profile.fingerprint = "another"
    profile.save(path)
    with pytest.raises(ProfileError, match="another vocabulary"):
        Profile.load(path, wire_format, tokenizer)
    with pytest.raises(ProfileError, match="cannot be merged"):
        profile.merge(Profile.of(wire_format, tokenizer))


def test_what_ends_a_turn_is_a_control_token(tokenizer: PreTrainedTokenizerBase) -> None:
    glm = WireFormat.load("glm_xml")
    assert Profile.of(glm, tokenizer).controls == (*glm.controls, "<|im_end|>")
    padding = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ends = [padding, padding, tokenizer.eos_token_id]
    assert Profile.of(WireFormat.load("hermes"), tokenizer, ends).controls == tuple(
        WireFormat.load("hermes").controls
    )


def test_the_gate_is_the_watchs() -> None:
    assert GATE == reading.GATE


def test_what_cannot_be_recorded_is_an_error(tmp_path: Path) -> None:
    profile = profile_of([0.5])
    with pytest.raises(ProfileError, match="without steps"):
        profile.add([])
    with pytest.raises(ProfileError, match="<think>"):
        profile.add([step(0.5, "<think>")])
    with pytest.raises(ProfileError, match="default"):
        Profile.default().add([step(0.5)])
    with pytest.raises(ProfileError, match="no control token '<think>'"):
        profile.p_value("<think>", "call", "opened", 0.5)
    with pytest.raises(ProfileError, match="cannot write"):
        profile.save(tmp_path)
    with pytest.raises(ProfileError, match="cannot read"):
        Profile.load(tmp_path / "nowhere.json")
    assert profile.turns == 1
    assert issubclass(ProfileError, toolguard.ToolguardError)
