"""Spikes in a step, drift over a stream: false alarms as rare as stated, and real ones raised."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolguard import Drift, Profile, ProfileError, RequestError, Step, spikes
from toolguard.policy.drift import BETS, LEVELS

CONTROLS = ("<tool_call>", "</tool_call>", "<|im_end|>")


def step(masses: dict[str, float], illegal: float = 0.0, **place: Any) -> Step:
    place = {"region": "call", "position": "opened", **place}
    return Step(
        0, token="x", token_id=1, masses=masses, illegal=illegal, pressure=0.0, rank=1, **place
    )


def healthy_turn(rng: random.Random) -> list[Step]:
    """An opener in two turns of three, some mass on the end where it does not belong."""
    opener = rng.choice([0.0, 0.99, 0.999])
    start = step({"<tool_call>": opener} if opener else {}, region="text", position="start")
    if not opener:
        return [start, step({"<|im_end|>": rng.random()}, region="text", position="text")]
    return [start, step({"<|im_end|>": rng.random() ** 8})]


def profile_of(turns: int, seed: int = 0) -> Profile:
    rng = random.Random(seed)
    profile = Profile("hermes", CONTROLS, "f")
    for _ in range(turns):
        profile.add(healthy_turn(rng))
    return profile


@pytest.fixture(scope="module")
def profile() -> Profile:
    return profile_of(800)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_healthy_steps_spike_at_the_stated_rate(profile: Profile, alpha: float) -> None:
    rng = random.Random(1)
    steps = [it for _ in range(4000) for it in healthy_turn(rng)]
    flagged = {id(spike.step) for spike in spikes(profile, steps, alpha)}
    assert 0 < len(flagged) <= alpha * len(steps)


def test_a_spike_says_where_and_how_rare(profile: Profile) -> None:
    found = spikes(profile, [step({"<|im_end|>": 1.0, "<tool_call>": 0.01})], 0.05)
    assert [(it.control, it.mass) for it in found] == [("<|im_end|>", 1.0), ("<tool_call>", 0.01)]
    assert all(it.p_value is not None and it.p_value <= 0.05 / 3 for it in found)


def test_without_a_profile_an_illegal_control_token_above_a_half_spikes() -> None:
    steps = [
        step({"<|im_end|>": 0.9}, illegal=0.9),
        step({"<|im_end|>": 0.9}, illegal=0.05),  # legal
        step({"<|im_end|>": 0.3}, illegal=0.9),  # illegal text
        step({"<|im_end|>": 0.4}, illegal=0.4),
    ]
    for profile in (Profile.default(), profile_of(20)):  # 20 turns cannot tell at this rate
        found = spikes(profile, steps, 0.01)
        assert [it.step for it in found] == steps[:1]
        assert found[0].p_value is None


def run_length(drift: Drift, turns: list[list[Step]]) -> int:
    """After how many turns the first alarm came; how many there were if none came."""
    for number, turn in enumerate(turns, start=1):
        if drift.update(turn):
            return number
    return len(turns)


def test_healthy_turns_raise_false_alarms_as_rarely_as_stated() -> None:
    # the mean of min(run length, limit) is a lower bound of the average run length
    lengths = []
    for seed in range(30):
        drift = Drift(profile_of(300, seed), run_length=20)
        rng = random.Random(f"stream {seed}")
        lengths.append(run_length(drift, [healthy_turn(rng) for _ in range(100)]))
    assert sum(lengths) / len(lengths) >= 20


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_statistic_grows_by_one_a_turn_at_most_on_average(seed: int) -> None:
    # what makes it an e-detector: E[statistic after t turns] <= t, here averaged over streams
    rng = random.Random(seed)
    profile = profile_of(300, seed)
    values = []
    for _ in range(20):
        drift = Drift(profile, run_length=1e9)
        for _ in range(20):
            drift.update(healthy_turn(rng))
        values.append(drift.statistic)
    assert sum(values) / len(values) <= 20


def test_every_bet_is_fair() -> None:
    for level in LEVELS:
        for bet in BETS:
            hit, miss = 1 - bet + bet / level, 1 - bet
            assert level * hit + (1 - level) * miss == pytest.approx(1)
            assert miss > 0


def test_a_sudden_change_raises_an_alarm_within_some_turns(profile: Profile) -> None:
    rng = random.Random(2)
    drift = Drift(profile)
    assert run_length(drift, [healthy_turn(rng) for _ in range(200)]) == 200
    for _ in range(20):
        alarm = drift.update([*healthy_turn(rng), step({"<|im_end|>": 1.0})])
        if alarm:
            break
    assert alarm is not None
    assert alarm.turn == drift.turns <= 200 + 12
    assert (alarm.control, alarm.position, alarm.measure) == ("<|im_end|>", "opened", "mass")
    assert alarm.size == 1
    assert alarm.healthy < 1
    assert alarm.statistic >= drift.run_length
    assert "The mass of <|im_end|> right after the opener of a call was up to 1 in the last" in str(
        alarm
    )
    assert drift.statistic == 0  # starts afresh


def test_a_fading_opener_raises_an_alarm_as_doubt(profile: Profile) -> None:
    drift = Drift(profile)
    turn = [step({"<tool_call>": 0.4}, region="text", position="start")]
    alarms = [alarm for _ in range(20) if (alarm := drift.update(turn))]
    assert (alarms[0].control, alarms[0].position, alarms[0].measure) == (
        "<tool_call>",
        "start",
        "doubt",
    )
    assert "doubt about <tool_call> at the start of the turn" in str(alarms[0])


def test_a_detector_goes_on_where_another_was(profile: Profile) -> None:
    rng = random.Random(3)
    turns = [healthy_turn(rng) for _ in range(60)]
    turns += [[*healthy_turn(rng), step({"<|im_end|>": 1.0})] for _ in range(40)]
    whole, parts = Drift(profile), Drift(profile)
    alarms = []
    for turn in turns:
        state = json.loads(json.dumps(parts.to_json()))
        parts = Drift(profile)
        parts.resume(state)
        alarms.append((whole.update(turn), parts.update(turn)))
        assert whole.statistic == parts.statistic
    assert all(left == right for left, right in alarms)
    assert any(left for left, _ in alarms)
    with pytest.raises(ProfileError, match="broken"):
        parts.resume({**state, "capital": "?"})
    with pytest.raises(ProfileError, match="broken"):
        Drift(Profile.default()).resume(state)


def test_without_a_profile_illegal_turns_raise_an_alarm() -> None:
    drift = Drift(Profile.default())
    sound = [step({"<|im_end|>": 0.2}, illegal=0.2)]
    assert run_length(drift, [sound] * 500) == 500
    alarms = [it for _ in range(20) if (it := drift.update([step({"<|im_end|>": 1.0}, 1.0)]))]
    assert alarms[0].control == "illegal tokens"
    assert "healthy" not in str(alarms[0])


def test_what_it_cannot_work_with_is_refused(profile: Profile) -> None:
    with pytest.raises(ProfileError, match="20 turns"):
        Drift(profile_of(20))
    with pytest.raises(RequestError, match="run_length"):
        Drift(profile, run_length=0)
    with pytest.raises(RequestError, match="risk"):
        Drift(profile, risk=1)
    with pytest.raises(RequestError, match="alpha"):
        spikes(profile, [], 0)
    with pytest.raises(ProfileError, match="without steps"):
        Drift(profile).update([])
    with pytest.raises(ProfileError, match="<think>"):
        Drift(profile).update([step({"<think>": 0.5})])
