"""An opener in prose: a mention where prose goes on, a call where anything else does."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState

BEFORE = "Write it between a"
AFTER = " tag and its end."


def told(state: GuardState, token: int, among: int) -> int:
    """What greedy decoding takes where the model wants a token, under the guard."""
    logits = torch.zeros((1, among))
    logits[0, token] = 20.0
    toolguard.enforce([state], logits)
    chosen = int(logits.argmax())
    assert state.accept(chosen)
    return chosen


def follow(guard: Guard, ids: list[int], among: int) -> GuardState:
    state = guard.start(200)
    for token in ids:
        told(state, token, among)
    return state


def test_prose_after_an_opener_makes_it_a_mention(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    opener = guard.opener_ids[0]
    ids = [*tokenizer(BEFORE)["input_ids"], opener, *tokenizer(AFTER)["input_ids"]]
    ids.append(guard.vocabulary.end_ids[0])
    state = follow(guard, ids, len(tokenizer))
    assert state.ids == ids
    assert state.done
    assert state.mentions == {ids.index(opener)}
    assert [item.action for item in state.interventions] == ["mention"]
    turn = guard.read(state.ids, state.mentions)
    assert turn.state == "healthy_response"
    assert turn.text == BEFORE + "<tool_call>" + AFTER
    assert turn.raw == turn.text


@pytest.mark.parametrize("wanted", ["<|im_end|>", "<|im_start|>", "<tool_call>", "\n", '{"'])
def test_anything_else_after_an_opener_makes_it_a_call(
    wanted: str, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    before = [*tokenizer(BEFORE)["input_ids"], guard.opener_ids[0]]
    state = follow(guard, before, len(tokenizer))
    told(state, tokenizer(wanted)["input_ids"][0], len(tokenizer))
    assert state.mentions == frozenset()
    assert state.region == "call"


def test_no_opener_is_a_mention_where_a_call_is_demanded_or_nothing_was_said(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    word = tokenizer(AFTER)["input_ids"][0]
    opener = Guard.compile("hermes", tools, tokenizer).opener_ids[0]
    said = [*tokenizer(BEFORE)["input_ids"], opener]
    for choice, before in (("required", said), ("auto", [opener]), ("get_time", said)):
        guard = Guard.compile("hermes", tools, tokenizer, tool_choice=choice)
        state = follow(guard, before, len(tokenizer))
        told(state, word, len(tokenizer))
        assert state.mentions == frozenset()
        assert state.region == "call"


def test_a_mention_is_rolled_back_with_its_token(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    opener = guard.opener_ids[0]
    before = tokenizer(BEFORE)["input_ids"]
    state = follow(guard, [*before, opener, *tokenizer(AFTER)["input_ids"]], len(tokenizer))
    copy = state.copy()
    state.rollback(len(state.ids) - len(before) - 1)
    assert state.mentions == {len(before)}
    state.rollback(1)
    assert state.mentions == frozenset()
    assert copy.mentions == {len(before)}
    fresh = guard.start(200)
    for token in before:
        assert fresh.accept(token)
    assert (state.mask() == fresh.mask()).all()
    call = '<tool_call>\n{"name": "get_time", "arguments": {"zone": "UTC"}}\n</tool_call>'
    for token in [*tokenizer(call)["input_ids"], guard.vocabulary.end_ids[0]]:
        assert state.accept(token)
    assert guard.read(state.ids, state.mentions).calls[0].name == "get_time"
