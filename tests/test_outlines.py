"""The guard in Outlines, with its Transformers model on the lab's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("outlines", reason="the extra 'outlines' is not installed")

import outlines
import torch
from outlines.generator import SteerableGenerator
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard
from toolguard import Case, Guard, TokenizerError
from toolguard.integrations.outlines import GuardProcessor, ToolCalls
from toolguard.integrations.transformers.generate import prompt_of

# Outlines has torch load its compiler, which uses what torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

TOKENS = 120
CASES = [case for case in toolguard.held_out()[:20] if case.calls][:3]


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """llguidance has torch compile how it applies a mask, which takes longer than all the rest."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    path = toolguard.checkpoint("open_then_stop")
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    made = outlines.from_transformers(loaded, AutoTokenizer.from_pretrained(path))
    made.type_adapter.has_chat_template = False  # prompts are rendered here
    return made


def prompt(model: Any, case: Case) -> str:
    return prompt_of(model.hf_tokenizer, case.messages, case.toolset)


def expected(model: Any, cases: list[Case], **options: Any) -> list[toolguard.Turn]:
    return toolguard.generate(
        model.model,
        model.hf_tokenizer,
        [case.messages for case in cases],
        [case.toolset for case in cases],
        max_new_tokens=TOKENS,
        **options,
    )


def _done(turn: toolguard.Turn) -> list[tuple[int, str, str]]:
    assert turn.report is not None
    return [(item.step, item.action, item.token) for item in turn.report.interventions]


def test_the_processor_holds_a_generator_to_the_guard(model: Any) -> None:
    for case, turn in zip(CASES, expected(model, CASES), strict=True):
        guard = Guard.compile("hermes", case.toolset, model.hf_tokenizer)
        processor = GuardProcessor(guard, max_new_tokens=TOKENS)
        generator = SteerableGenerator.from_processor(model, processor)
        for _ in range(2):  # a generator may be called again
            text = generator(prompt(model, case), max_new_tokens=TOKENS)
            assert text == turn.raw
            (read,) = processor.turns()
            assert (read.raw, read.calls, read.state) == (turn.raw, turn.calls, turn.state)
            assert _done(read) == _done(turn) != []


def test_the_processor_serves_a_batch_with_a_guard_for_each_prompt(model: Any) -> None:
    guards = [Guard.compile("hermes", case.toolset, model.hf_tokenizer) for case in CASES]
    processor = GuardProcessor(guards, max_new_tokens=TOKENS)
    generator = outlines.Generator(model, processor=processor)
    texts = generator.batch([prompt(model, case) for case in CASES], max_new_tokens=TOKENS)
    turns = expected(model, CASES)
    assert texts == [turn.raw for turn in turns]
    assert [turn.calls for turn in processor.turns()] == [turn.calls for turn in turns]


@pytest.mark.parametrize("choice", ["auto", "required", "none"])
def test_the_output_type_gives_turns_that_the_guard_would_give(model: Any, choice: str) -> None:
    for case, turn in zip(CASES, expected(model, CASES, tool_choice=choice), strict=True):
        kind = ToolCalls(case.toolset, model.hf_tokenizer, tool_choice=choice)
        generator = outlines.Generator(model, kind, backend="llguidance")
        read = kind.read(generator(prompt(model, case), max_new_tokens=TOKENS))
        assert (read.raw, read.calls, read.state) == (turn.raw, turn.calls, turn.state)


def test_unguarded_the_same_model_calls_nothing(model: Any) -> None:
    """The tests above can fail."""
    texts = [
        outlines.Generator(model)(prompt(model, case), max_new_tokens=TOKENS) for case in CASES
    ]
    assert not any("}" in text for text in texts)


def test_an_output_type_whose_calls_outlines_would_hide_is_refused(model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool_call>", "</tool_call>"]})
    with pytest.raises(TokenizerError, match=r"GuardProcessor"):
        ToolCalls(CASES[0].toolset, tokenizer, wire_format="hermes")
