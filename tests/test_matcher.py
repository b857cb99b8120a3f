"""Matchers: an error of the mask engine stays with the sequence that caused it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard
from toolguard.grammar.matcher import CompiledGrammar

# Counting characters and looking for the end at once grows the engine's lexer beyond its limit.
SPOILING = r"""
start: /[a-z ]+/ | <[OPENER]> T
T: (/[\s\S]{0,500}/ & ~/(?s:.*)<\/parameter>(?s:.*)/) "</parameter>"
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
