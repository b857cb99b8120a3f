from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState

CALL = '<tool_call>\n{"name": "get_time", "arguments": {"zone": "UTC"}}\n</tool_call>'


@pytest.fixture
def guard(tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]) -> Guard:
    return Guard.compile("hermes", tools, tokenizer)


def feed(state: GuardState, ids: list[int]) -> None:
    for token in ids:
        assert state.accept(token)


def test_rolling_back_restores_the_mask_at_every_length(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = [*tokenizer("Yes.\n" + CALL)["input_ids"], guard.vocabulary.end_ids[0]]
    walked = guard.start(500)
    masks = []
    for token in ids:
        masks.append(walked.mask())
        feed(walked, [token])
    assert walked.done
    for back in range(1, len(ids) + 1):
        state = walked.copy()
        state.rollback(back)
        assert not state.done
        assert np.array_equal(state.mask(), masks[-back])
        feed(state, ids[-back:])
        assert state.done
    with pytest.raises(toolguard.StateError, match="cannot roll back"):
        walked.rollback(len(ids) + 1)


def test_a_copy_goes_its_own_way(guard: Guard, tokenizer: PreTrainedTokenizerBase) -> None:
    state = guard.start(100)
    feed(state, tokenizer("So")["input_ids"])
    before = state.mask()
    other = state.copy()
    feed(other, tokenizer(CALL)["input_ids"])
    assert np.array_equal(state.mask(), before)
    assert state.ids != other.ids


def test_illegal_tokens_change_nothing(guard: Guard, tokenizer: PreTrainedTokenizerBase) -> None:
    state = guard.start(100)
    before = state.mask()
    closer = guard.control_ids["</tool_call>"]
    assert not state.accept(closer)
    assert not state.accept(guard.vocabulary.end_ids[0])
    assert state.ids == []
    assert np.array_equal(state.mask(), before)
    feed(state, [*tokenizer("Hi")["input_ids"], guard.vocabulary.end_ids[0]])
    assert not state.accept(closer)
    assert state.done


def test_regions_follow_the_control_tokens(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    state = guard.start(200)
    seen = [state.region]
    for token in [
        *tokenizer("<think>\nhm</think>So. " + CALL)["input_ids"],
        guard.vocabulary.end_ids[0],
    ]:
        feed(state, [token])
        if state.region != seen[-1]:
            seen.append(state.region)
    assert seen == ["text", "reasoning", "text", "call", "text", "done"]


def test_forced_tokens_are_what_must_follow(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer, tool_choice="get_time")
    state = guard.start(200)
    feed(state, tokenizer('<tool_call>\n{"name": "')["input_ids"])
    forced = state.forced()
    assert guard.vocabulary.bytes_of(forced).startswith(b"get_time")
    for token in forced:
        assert state.accept(token)


def test_equal_requests_share_one_guard(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    one = Guard.compile("hermes", tools, tokenizer)
    assert Guard.compile("hermes", copy.deepcopy(tools), tokenizer) is one
    assert Guard.compile("hermes", tools, tokenizer, parallel=False) is not one


def test_what_the_mask_cannot_enforce_is_said_and_still_validated(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    properties = {
        "ids": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
        "either": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "when": {"type": "string", "format": "colour"},
    }
    tools = [{"name": "f", "parameters": {"properties": properties}}]
    guard = Guard.compile("hermes", tools, tokenizer)
    found = {(item.path, item.keyword) for item in guard.relaxations if item.tool}
    assert found == {("/ids", "uniqueItems"), ("/either", "oneOf"), ("/when", "format")}
    turn = guard.read(
        tokenizer('<tool_call>{"name": "f", "arguments": {"ids": [1, 1]}}</tool_call>')["input_ids"]
    )
    assert [fault.kind for fault in turn.faults] == ["bad_arguments", "unfinished_turn"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tool_choice": "missing"}, toolguard.RequestError, "one of get_weather, get_time, ping"),
        ({"reasoning": "maybe"}, toolguard.RequestError, "use auto, open, none"),
        ({"end_tokens": [10**6]}, toolguard.TokenizerError, "not in a vocabulary"),
        ({"end_tokens": []}, toolguard.TokenizerError, "no token that ends a turn"),
    ],
)
def test_impossible_requests_are_refused(
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, Any]],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        Guard.compile("hermes", tools, tokenizer, **options)


def test_no_tools_leave_no_calls(tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile("hermes", [], tokenizer)
    state = guard.start(50)
    assert not state.accept(guard.control_ids["<tool_call>"])
    with pytest.raises(toolguard.RequestError, match="no tools are offered"):
        Guard.compile("hermes", [], tokenizer, tool_choice="required")


def test_recursive_schemas_and_many_members_compile(tokenizer: PreTrainedTokenizerBase) -> None:
    node = {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
        "required": ["v"],
    }
    many = {f"key_{i}": {"type": "integer"} for i in range(70)}
    tools = [
        {
            "name": "list",
            "parameters": {"properties": {"n": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}},
        },
        {"name": "many", "parameters": {"properties": many, "required": ["key_3", "key_69"]}},
    ]
    guard = Guard.compile("hermes", tools, tokenizer)
    end = guard.vocabulary.end_ids[0]
    for call, legal in [
        ('"list", "arguments": {"n": {"next": {"next": {"v": 1}, "v": 2}, "v": 3}}', True),
        ('"list", "arguments": {"n": {"next": {"next": {"v": 1}}, "v": 3}}', False),
        ('"many", "arguments": {"key_3": 1, "key_5": 2, "key_69": 0}', True),
        ('"many", "arguments": {"key_3": 1, "key_5": 2}', False),
        ('"many", "arguments": {"key_5": 2, "key_69": 0}', False),
        ('"many", "arguments": {"key_69": 0, "key_5": 2, "key_3": 1}', True),
    ]:
        state = guard.start(500)
        ids = [*tokenizer(f'<tool_call>\n{{"name": {call}}}\n</tool_call>')["input_ids"], end]
        assert all(state.accept(token) for token in ids) == legal, call


def test_where_a_turn_stands_costs_no_more_the_longer_it_is(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    word = tokenizer(" tag", add_special_tokens=False)["input_ids"][-1]
    state = guard.start(100_000)

    def spent() -> float:
        """The least time that a look at the region took, of some."""
        times = []
        for _ in range(30):
            assert state.accept(word)
            started = time.perf_counter()
            assert state.region == "text"
            times.append(time.perf_counter() - started)
        return min(times)

    early = spent()
    for _ in range(12_000):
        assert state.accept(word)
    assert state.region == "text"
    assert spent() < 8 * early  # of a turn some 200 times as long
