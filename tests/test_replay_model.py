"""The model that follows a script: healthy at strength 0, damaged as it says above."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

import toolguard
from benchmarks.replay_damage import NAMES, damages
from benchmarks.replay_model import Script, follow
from benchmarks.replay_scripts import REPLY, Subject, subject
from toolguard import Case, GuardLogitsProcessor, Toolset

CALLS = (
    {"name": "get_weather", "arguments": {"city": "New York", "days": 12, "unit": "celsius"}},
    {"name": "get_time", "arguments": {"zone": "UTC"}},
)
PLAIN = "{{ messages[0]['content'] + '\\n' }}"


@pytest.fixture(scope="module")
def hermes() -> Subject:
    return subject("hermes", "bundled")


@pytest.fixture
def cases(tools: list[dict[str, Any]]) -> list[Case]:
    offered = Toolset.of(tools)
    said = [CALLS[:1], CALLS, ()]
    return [
        Case(f"case {'long ' * place}{place}", "", offered, ({"role": "user"},), calls, None)
        for place, calls in enumerate(said)
    ]


@pytest.fixture
def scripts(hermes: Subject, cases: list[Case]) -> list[Script]:
    return [hermes.script(case) for case in cases]


def batch(scripts: list[Script], pad: int) -> dict[str, torch.Tensor]:
    """Their prompts, padded on the left."""
    width = max(len(script.prompt) for script in scripts)
    rows = [[pad] * (width - len(s.prompt)) + [*s.prompt] for s in scripts]
    mask = [[0] * (width - len(s.prompt)) + [1] * len(s.prompt) for s in scripts]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def said(output: torch.Tensor, prompts: dict[str, torch.Tensor], end: int) -> list[list[int]]:
    turns = output[:, prompts["input_ids"].shape[1] :].tolist()
    return [turn[: turn.index(end) + 1] for turn in turns]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_healthy_model_says_its_script(
    hermes: Subject, scripts: list[Script], beams: int
) -> None:
    model, end = hermes.model(scripts), hermes.ends[0]
    prompts = batch(scripts, end)
    output = model.generate(**prompts, do_sample=False, num_beams=beams, max_new_tokens=120)
    assert said(output, prompts, end) == [[*script.ids] for script in scripts]


@pytest.mark.parametrize("policy", ["observe", "enforce", "recover", "reference"])
@pytest.mark.parametrize("name", ["hermes", "qwen3_xml", "mistral_json", "harmony", "pythonic"])
def test_no_policy_changes_a_healthy_turn(cases: list[Case], name: str, policy: str) -> None:
    spoken = subject(name, "bundled")
    parts = [case for case in cases if len(case.calls) < 2]
    scripts = [spoken.script(case) for case in parts]
    options: dict[str, Any] = {"policy": policy}
    if policy == "reference":
        options = {"policy": "recover", "reference": spoken.model(scripts)}
    turns = toolguard.generate(
        spoken.model(scripts),
        spoken.tokenizer,
        [[{"role": "user", "content": case.id}] for case in parts],
        parts[0].toolset,
        wire_format=name,
        show_tools=False,
        chat_template=PLAIN,
        **options,
    )
    assert [turn.ids for turn in turns] == [script.ids for script in scripts]
    assert not any(turn.report.interventions for turn in turns if turn.report)
    if policy == "enforce":
        assert turns[0].report.forced > 0


def test_what_was_taken_back_is_forgotten(
    hermes: Subject, scripts: list[Script], cases: list[Case]
) -> None:
    """An opener before a plain reply: `recover` takes the call back that it led to."""
    spike = damages(hermes)["opener"]
    model = hermes.model(scripts, spike, strength=30.0)
    turn = toolguard.generate(
        model,
        hermes.tokenizer,
        [{"role": "user", "content": cases[2].id}],
        cases[2].toolset,
        policy="recover",
        reference=hermes.model(scripts),
        show_tools=False,
        chat_template=PLAIN,
    )
    assert turn.text == REPLY


def test_a_guard_holds_a_damaged_batch(
    hermes: Subject, scripts: list[Script], cases: list[Case]
) -> None:
    model = hermes.model(scripts, damages(hermes)["end_of_turn"], strength=30.0)
    prompts, end = batch(scripts, hermes.ends[0]), hermes.ends[0]
    output = model.generate(**prompts, do_sample=False, max_new_tokens=120)
    assert said(output, prompts, end)[0] != [*scripts[0].ids]
    processor = GuardLogitsProcessor([hermes.guard(case) for case in cases], max_new_tokens=120)
    output = model.generate(
        **prompts,
        do_sample=False,
        max_new_tokens=120,
        logits_processor=LogitsProcessorList([processor]),
    )
    assert said(output, prompts, end) == [[*script.ids] for script in scripts]


@pytest.mark.parametrize("name", NAMES[:-1])
def test_damage_raises_what_it_names_and_nothing_else(
    hermes: Subject, scripts: list[Script], name: str
) -> None:
    damage = damages(hermes)[name]
    healthy, still = hermes.model(scripts), hermes.model(scripts, damage, strength=0.0)
    raised = hermes.model(scripts, damage, strength=7.0)
    struck = 0
    for script in scripts:
        for cut in range(len(script.ids)):
            ids = [*script.prompt, *script.ids[:cut]]
            before, after = healthy.after(ids), raised.after(ids)
            assert np.array_equal(before, still.after(ids))
            changed = np.flatnonzero(before != after)
            assert np.allclose((after - before)[changed], 7.0, atol=1e-4)
            assert len(changed) <= 12
            struck += len(changed)
    assert struck


def test_a_healthy_distribution_is_sure_and_sums_to_one(
    hermes: Subject, scripts: list[Script]
) -> None:
    model = hermes.model(scripts)
    for script in scripts:
        for cut, right in enumerate(script.ids):
            logits = torch.from_numpy(model.after([*script.prompt, *script.ids[:cut]]))
            assert 0.9 < logits.softmax(-1)[right] < 0.99
            assert abs(float(logits.logsumexp(-1))) < 0.1


def test_noise_is_the_seeds(hermes: Subject, scripts: list[Script]) -> None:
    ids = [*scripts[0].prompt]
    one, again, other = (hermes.model(scripts, noise=2.0, seed=s).after(ids) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_prompt_without_a_script_is_refused(hermes: Subject, scripts: list[Script]) -> None:
    with pytest.raises(ValueError, match="no script for this prompt"):
        hermes.model(scripts).after([1] * 100)


TURN = b'<tool_call>\n{"name": "f", "arguments": {"city": "New York", "n": 12}}\n</tool_call>'


@pytest.mark.parametrize(
    ("written", "said", "inside", "left"),
    [
        ("", "<tool_call>", False, '\n{"name"'),
        ("", "<tool_", False, "call>"),
        ("<tool_call>\n", "  ", False, '{"name"'),
        ("<tool_call>", '{"', False, 'name"'),
        ("<tool_call>", "<tool_call>", False, '\n{"name"'),  # doubled
        ("<tool_call>", "<|im_start|>", False, '\n{"name"'),  # put in
        ("<tool_call>\n", "user", False, '{"name"'),
        ('<tool_call>\n{"name": "f", "arguments": {"city": "New', '"', True, ', "n": 12'),
        ('<tool_call>\n{"name": "f", "arguments": {"city": "New', "7", True, " York"),
        ('<tool_call>\n{"name": "f", "arguments": {"city": "', "Old", True, ' York"'),
        ('<tool_call>\n{"name": "f", "arguments": {"city": "New York", "n": ', "9", False, "}}\n"),
        ('<tool_call>\n{"name": "f"', "</tool_call>", False, ""),  # closed early: nothing is left
    ],
)
def test_following(written: str, said: str, inside: bool, left: str) -> None:
    at = TURN.find(written.encode()) + len(written.encode())
    there = follow(TURN, at, said.encode(), inside)
    assert TURN[there:].decode().startswith(left)
    assert left or there == len(TURN)
