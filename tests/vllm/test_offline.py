"""`toolguard.vllm.chat` with a real engine in this process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM
from vllm import LLM, SamplingParams

import toolguard
from toolguard import Case

TOKENS = 200


@pytest.fixture
def greedy() -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=TOKENS)


def test_turns_are_those_of_generate(llm: LLM, greedy: SamplingParams, asked: list[Case]) -> None:
    path = toolguard.checkpoint("open_then_stop")
    model = Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    for case in asked[:12]:
        expected = toolguard.generate(
            model, tokenizer, case.messages, case.toolset, max_new_tokens=TOKENS
        )
        turn = toolguard.vllm.chat(llm, case.messages, case.toolset, sampling_params=greedy)
        assert turn == replace(expected, report=None)
        assert turn.calls


def test_a_batch_says_what_its_conversations_say_alone(
    llm: LLM, greedy: SamplingParams, asked: list[Case]
) -> None:
    tools = asked[0].toolset
    same = [case.messages for case in asked[:4]]
    turns = toolguard.vllm.chat(llm, same, tools, sampling_params=greedy)
    assert turns == [
        toolguard.vllm.chat(llm, messages, tools, sampling_params=greedy) for messages in same
    ]


def test_options(llm: LLM, greedy: SamplingParams, asked: list[Case]) -> None:
    case = asked[0]
    assert greedy.extra_args is None

    def turn(**options: object) -> toolguard.Turn:
        return toolguard.vllm.chat(
            llm, case.messages, case.toolset, sampling_params=greedy, **options
        )

    assert turn(policy="observe").state == "collapsed"
    assert not turn(tool_choice="none").calls
    for tool in case.toolset:
        assert {call.name for call in turn(tool_choice=tool.name).calls} == {tool.name}
    assert turn(wire_format="hermes") == turn()
    assert greedy.extra_args is None  # the caller's own are left as they were
    assert toolguard.vllm.chat(llm, case.messages, case.toolset) == turn()


def test_what_cannot_be_done_is_refused(llm: LLM, asked: list[Case]) -> None:
    case = asked[0]
    for options, message in [
        ({"tool_choice": "fly"}, "tool_choice"),
        ({"policy": "recover"}, "policy"),
        ({"sampling_params": SamplingParams(n=2)}, "n=2"),
    ]:
        with pytest.raises(toolguard.RequestError, match=message):
            toolguard.vllm.chat(llm, case.messages, case.toolset, **options)
    with pytest.raises(toolguard.RequestError, match="no messages"):
        toolguard.vllm.chat(llm, [], case.toolset)


def test_a_mode_that_cannot_work_is_refused(
    llm: LLM, asked: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLGUARD_MODE", "engine")
    with pytest.raises(toolguard.RequestError, match="guidance"):
        toolguard.vllm.chat(llm, asked[0].messages, asked[0].toolset)
