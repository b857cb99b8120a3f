"""Matchers: an error of the mask engine stays with the sequence that caused it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

import toolguard
from toolguard import Guard
from toolguard.grammar.matcher import CompiledGrammar

# Counting characters and looking for the end at once grows the engine's lexer beyond its limit.
SPOILING = r"""
start: /[a-z ]+/ | <[OPENER]> T
T: (/[\s\S]{0,5000}/ & ~/(?s:.*)<\/parameter>(?s:.*)/) "</parameter>"
"""


@pytest.fixture
def guard(tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]) -> Guard:
    """A guard whose engine fails behind an opener."""
    guard = Guard.compile("hermes", tools, tokenizer)
    grammar = SPOILING.replace("OPENER", str(guard.control_ids["<tool_call>"]))
    return replace(guard, compiled=CompiledGrammar(guard.vocabulary, grammar))


def spoiling(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer("<tool_call>" + "some words " * 6 + "</parameter>")["input_ids"])


@pytest.mark.filterwarnings("default")  # the engine warns of its own error
def test_a_sequence_that_breaks_the_engine_harms_no_other(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    text = tokenizer("some text of another")["input_ids"]
    alone, beside, spoiler = (guard.compiled.start() for _ in range(3))
    expected = []
    for token in text:
        expected.append(alone.mask())
        assert alone.accept([token]) == 1
    beside.accept(text[:2])
    for token in spoiling(tokenizer):
        spoiler.mask()
        spoiler.accept([token])
    assert spoiler.broken
    assert (spoiler.mask() == -1).all()
    for other, taken in ((beside.copy(), 2), (beside, 2), (guard.compiled.start(), 0)):
        for mask, token in zip(expected[taken:], text[taken:], strict=True):
            assert np.array_equal(other.mask(), mask)
            assert other.accept([token]) == 1
        assert not other.broken
        assert other.rollback(1)
        assert np.array_equal(other.mask(), expected[-1])


@pytest.mark.filterwarnings("default")
def test_a_turn_that_the_engine_cannot_follow_goes_on_unguarded_and_says_so(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    state = guard.start(5000)
    for token in spoiling(tokenizer):
        logits = torch.zeros(1, guard.vocabulary.size)
        toolguard.enforce([state], logits)
        assert state.accept(token)
    assert state.lost
    said = [each.reason for each in state.interventions if each.action == "unguard"]
    assert len(said) == 1
    assert "cannot follow" in said[0]
    logits = torch.zeros(1, guard.vocabulary.size)
    toolguard.enforce([state], logits)
    assert (logits == 0).all()
    assert state.accept(guard.vocabulary.end_ids[0])
    assert state.done


def test_a_tokenizer_may_have_gaps_in_its_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in backend["added_tokens"]:
        if token["content"] == "<|im_end|>":
            token["id"] = 1500
    backend["model"]["vocab"]["<|im_end|>"] = 1500
    made = Tokenizer.from_str(json.dumps(backend))
    gapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>")
    for ends in (None, [1500]):
        guard = Guard.compile("hermes", [{"name": "ping"}], gapped, end_tokens=ends)
        state = guard.start(50)
        for token in gapped.encode("It is."):
            assert state.accept(token)
        legal = np.unpackbits(state.mask().view(np.uint8), bitorder="little")
        assert legal[1500]
        assert not legal[1499]
        assert state.accept(1500)
        assert guard.read(state.ids).state == "healthy_response"


@pytest.mark.filterwarnings("default")
def test_an_error_is_noticed_where_no_mask_is_asked_for(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    other, spoiler = guard.compiled.start(), guard.compiled.start()
    for token in spoiling(tokenizer):
        spoiler.mask()
        spoiler.accept([token])
    text = tokenizer("some text of another")["input_ids"]
    assert other.copy().accepts(text[0])
    assert other.accept(text) == len(text)
    assert not other.broken
