"""The watch: exact masses behind an exact gate, and nothing changed by looking."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from toolguard import Guard
from toolguard.decoding import host_reading
from toolguard.decoding.batch import apply, fill, unpack
from toolguard.decoding.watch import Watch
from toolguard.policy.enforce import hold, observe
from toolguard.report.report import GATE

BEGINNINGS = ["", "Hello", "<tool_call>", '<tool_call>\n{"name": "', "Let me see. <tool_call>"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([1.0, 4.0, 12.0]),
    spike=st.sampled_from([0.0, 8.0, 30.0]),
    rows=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    data=st.data(),
)
def test_masses_and_pressure_are_the_models_own_where_the_gate_passes(
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, object]],
    seed: int,
    spread: float,
    spike: float,
    rows: int,
    dtype: torch.dtype,
    data: st.DataObject,
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    states = []
    for _ in range(rows):
        state = guard.start(500)
        for token in tokenizer(data.draw(st.sampled_from(BEGINNINGS)))["input_ids"]:
            assert state.accept(token)
        states.append(state)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((rows, len(tokenizer) + 3), generator=generator) * spread
    watched = [*dict.fromkeys([*guard.control_ids.values(), *guard.vocabulary.end_ids])]
    logits[:, data.draw(st.sampled_from(watched))] += spike
    logits = logits.to(dtype)
    original = logits.clone()
    legal = unpack(fill(states), logits.device)
    legal = torch.nn.functional.pad(legal, (0, logits.shape[1]))[:, : logits.shape[1]]
    reading = observe(states, logits)
    assert torch.equal(logits, original)
    own = original.double().softmax(-1)
    for row, found in enumerate(reading.records()):
        assert found.wanted == int(original[row].argmax())
        assert found.legal == bool(legal[row, found.wanted])
        masses = own[row, watched]
        if reading.passed[row]:
            assert found.masses == pytest.approx(masses.tolist(), abs=1e-5)
            assert found.mass == pytest.approx(own[row].max().item(), abs=1e-5)
            left = own[row][legal[row]].sum().item()
            assert math.exp(-found.pressure) == pytest.approx(left, rel=1e-3, abs=1e-6)
        else:
            assert float(masses.max()) <= GATE
            assert set(found.masses) == {0.0}
            assert found.legal
    picked = original.topk(3).indices[:, data.draw(st.integers(0, 2))].tolist()
    for row, rank in enumerate(reading.ranks(picked)):
        above = int((original[row] > original[row, picked[row]]).sum())
        wanted = picked[row] == int(reading.wanted[row])
        assert rank == above + 1 or (rank == 0 and not wanted and not reading.passed[row])


@settings(max_examples=300, deadline=None)
@given(
    words=st.integers(1, 40),
    width=st.integers(1, 1400),
    legal=st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_mask_leaves_the_legal_logits_as_they_are(
    words: int, width: int, legal: float, dtype: torch.dtype, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.random((2, 32 * words)) < legal
    bitmask = torch.from_numpy(np.packbits(bits, axis=1, bitorder="little").view(np.int32))
    logits = torch.from_numpy(rng.normal(size=(2, width)) * 5).to(dtype)
    allowed = torch.from_numpy(np.pad(bits, ((0, 0), (0, width)))[:, :width])
    expected = logits.masked_fill(~allowed, -math.inf)
    apply(bitmask, logits)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("begun", BEGINNINGS)
def test_first_choices_are_found_wherever_they_matter(
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, object]],
    begun: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([f"word{number}" for number in range(6000)])
    monkeypatch.setattr(host_reading, "_COMMON", len(tokenizer) // 4)
    guard = Guard.compile("hermes", tools, tokenizer)
    state = guard.start(500)
    for token in tokenizer(begun)["input_ids"]:
        assert state.accept(token)
    states = [state.copy() for _ in range(200)]
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn((200, len(tokenizer) + 7), generator=generator)
    logits *= torch.tensor([1.0, 4.0, 12.0, 30.0]).repeat(50).unsqueeze(1)
    logits[:50, [*guard.control_ids.values()]] += 10.0
    logits[100:, [*guard.control_ids.values()]] -= 10.0
    readings = []
    for choices in (True, False):
        scores = logits.clone()
        reading = Watch.of(guard).mask(scores, fill(states), choices)
        reading.close(scores)
        readings.append((scores, reading.records()))
    (masked, found), (other, found_otherwise) = readings
    assert torch.equal(masked, other)
    for one, two in zip(found, found_otherwise, strict=True):
        assert two in (one, one._replace(wanted=None))
        assert two.wanted is not None or (two.kept and two.pressure == 0 and not any(two.masses))
    if begun == "Hello":
        assert 20 < sum(record.wanted is None for record in found_otherwise) < 180


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_id_past_the_tokenizer_is_illegal(
    dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    logits = torch.zeros((1, len(tokenizer) + 300), dtype=dtype)
    logits[0, -1] = 30.0
    state = guard.start(100)
    toolguard.enforce([state], logits)
    assert logits[0, -1] == -math.inf
    assert state.interventions[0].token_id == logits.shape[1] - 1
    assert state.pressure > 20


def test_holding_reads_the_same_as_observing(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    states = [guard.start(100) for _ in range(3)]
    logits = torch.randn((3, len(tokenizer)), generator=torch.Generator().manual_seed(1)) * 3
    logits[1, guard.vocabulary.end_ids[0]] += 20  # an empty turn
    seen, held = observe(states, logits), hold(states, logits)
    for one, other in zip(seen.records(), held.records(), strict=True):
        assert one == other
    assert [found.kept for found in held.records()] == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_floating_type_is_held_alike(
    dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    logits = torch.randn((2, len(tokenizer)), generator=torch.Generator().manual_seed(3))
    logits[1, guard.vocabulary.end_ids[0]] = 30.0  # an empty turn
    plain, typed = logits.clone(), logits.to(dtype)
    for scores in (plain, typed):
        states = [guard.start(100) for _ in range(2)]
        toolguard.enforce(states, scores)
        assert [len(state.interventions) for state in states] == [0, 1]
        assert states[1].interventions[0].mass == pytest.approx(1.0)
    assert torch.equal(plain.isinf(), typed.isinf())


def test_steps_are_kept_on_request_and_say_where_each_token_stands(
    damaged: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    case = next(case for case in toolguard.held_out() if case.kind == "one")
    options: dict[str, Any] = {"max_new_tokens": 120}
    plain = toolguard.generate(damaged, tokenizer, case.messages, case.toolset, **options)
    turn = toolguard.generate(
        damaged, tokenizer, case.messages, case.toolset, trace=True, **options
    )
    assert plain.report is not None
    assert turn.report is not None
    assert plain.ids == turn.ids
    assert plain.report.steps == ()
    steps = turn.report.steps
    assert [step.token_id for step in steps] == list(turn.ids)
    assert [step.step for step in steps] == list(range(len(turn.ids)))
    assert steps[0].position == "start"
    assert steps[1].position == "opened"
    assert {"value", "structure", "closed"} <= {step.position for step in steps}
    assert sum(step.pressure for step in steps) == pytest.approx(turn.report.pressure, abs=1e-4)
    spike = max(steps, key=lambda step: step.pressure)
    assert spike.masses["<|im_end|>"] > 0.9
    assert spike.illegal > 0.9
    assert spike.rank > 1
    assert (turn.report.state_before, turn.report.state_after) == ("collapsed", "healthy_call")


def test_an_observed_turn_may_leave_the_grammar_and_is_followed_to_its_end(
    damaged: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    cases = toolguard.held_out()[:6]
    plain = toolguard.answer(damaged, tokenizer, cases, policy="observe")
    traced = toolguard.answer(damaged, tokenizer, cases, policy="observe", trace=True)
    for one, other in zip(plain, traced, strict=True):
        assert one.ids == other.ids
        assert other.report is not None
        assert [step.token_id for step in other.report.steps] == list(other.ids)
        assert other.report.interventions == ()
