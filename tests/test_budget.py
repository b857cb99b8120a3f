"""A turn always ends closed within its budget, by the shortest way where it must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard

TURN = (
    "Let me see <b>.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"options": {"tags": ["añ", "b"], '
    '"metric": true}, "days": 12, "unit": "celsius", "city": "São \\"P\\""}}\n</tool_call>\n'
    '<tool_call>\n{"arguments": {"zone": "UTC"}, "name": "get_time"}\n</tool_call>'
)


@pytest.mark.parametrize("spare", [0, 1, 2, 7])
def test_every_prefix_of_a_call_is_closed_within_a_small_budget(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]], spare: int
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    ids: list[int] = tokenizer(TURN)["input_ids"]
    generator = torch.Generator().manual_seed(spare)
    states = []
    for length in range(len(ids) + 1):
        least = length + len(guard.completion(ids[:length])) + 1
        state = guard.start(max(least + spare, 2))
        for token in ids[:length]:
            assert state.accept(token)
        states.append(state)
    while not all(state.done for state in states):
        logits = torch.randn((len(states), len(tokenizer)), generator=generator) * 3
        toolguard.enforce(states, logits)
        for state, token in zip(states, logits.argmax(-1).tolist(), strict=True):
            assert state.done or state.accept(token)
    for state in states:
        assert len(state.ids) <= state.max_new_tokens
        assert guard.read(state.ids, state.mentions).faults == ()


def test_a_budget_that_fits_no_turn_is_refused_with_the_least_one(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    assert Guard.compile("hermes", tools, tokenizer).start(2)
    guard = Guard.compile("hermes", tools, tokenizer, tool_choice="get_weather")
    least = len(guard.completion([])) + 1
    assert guard.start(least)
    with pytest.raises(toolguard.RequestError, match=f"takes {least} tokens"):
        guard.start(least - 1)


def test_the_shortest_completion_has_what_is_required_and_no_more(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    prefix = '<tool_call>{"name": "get_weather", "arguments": {"options": {'
    ids: list[int] = tokenizer(prefix)["input_ids"]
    turn = guard.read([*ids, *guard.completion(ids), guard.vocabulary.end_ids[0]])
    assert [call.arguments for call in turn.calls] == [
        {"options": {"tags": [""]}, "city": "", "unit": "celsius"}
    ]


def test_numbers_are_finished_before_they_are_closed(tokenizer: PreTrainedTokenizerBase) -> None:
    numbers = {
        "a": {"type": "number"},
        "b": {"type": "integer"},
        "c": {"type": "number", "minimum": 0},
    }
    tools = [{"name": "f", "parameters": {"properties": numbers}}]
    guard = Guard.compile("hermes", tools, tokenizer)
    for begun in ("-", "1.", "-2.5e", "1e+", "0", "120"):
        for name in numbers:
            prefix = f'<tool_call>{{"name": "f", "arguments": {{"{name}": {begun}'
            ids: list[int] = tokenizer(prefix)["input_ids"]
            state = guard.start(500)
            if all(state.accept(token) for token in ids):
                turn = guard.read([*ids, *guard.completion(ids), guard.vocabulary.end_ids[0]])
                assert turn.faults == (), (begun, name)


def test_a_model_that_would_end_in_time_is_left_alone_up_to_its_last_token(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    ids = [*tokenizer(TURN)["input_ids"], guard.vocabulary.end_ids[0]]
    state = guard.start(len(ids) + 1)  # the least estimate may be a token above the model's way
    for token in ids:
        logits = torch.zeros((1, len(tokenizer)))
        logits[0, token] = 5.0
        toolguard.enforce([state], logits)
        assert logits.argmax() == token
        assert state.accept(token)
    assert state.done
    assert state.interventions == []


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("bounds", [(1, 14), (2, 300), (-300, -2), (9, 1000), (1, 9)])
def test_a_number_under_bounds_has_an_end_at_each_of_its_digits(
    tokenizer: PreTrainedTokenizerBase, kind: str, bounds: tuple[int, int]
) -> None:
    low, high = bounds
    number = {"type": kind, "minimum": low, "maximum": high}
    properties = {"n": number, "unit": {"enum": ["km", "mile"]}}
    tools = [{"name": "f", "parameters": {"properties": properties, "required": ["n", "unit"]}}]
    guard = Guard.compile("hermes", tools, tokenizer)
    inside = (low, high, (low + high) // 2)
    for spelled in (*map(str, inside), *(f"{value}.0" for value in inside)):
        text = f'<tool_call>\n{{"name": "f", "arguments": {{"n": {spelled}, "unit": "km"}}}}'
        ids = tokenizer(text)["input_ids"]
        for size in range(len(ids) + 1):
            turn = guard.read([*ids[:size], *guard.completion(ids[:size]), tokenizer.eos_token_id])
            assert turn.faults == (), text
