"""Control tokens in an argument's value: words where they are set apart there, damage elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState, Turn, WireFormat

ECHO = [
    {
        "name": "echo",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
        },
    }
]
NAMES = [name for name in toolguard.format_names() if WireFormat.load(name).sayable]


def controlled(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    other = copy.deepcopy(tokenizer)
    other.add_tokens([*WireFormat.load(name).controls], special_tokens=True)
    return other


def call(name: str, text: str) -> str:
    return toolguard.render(WireFormat.load(name), [{"name": "echo", "arguments": {"text": text}}])


def written(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def greedy(guard: Guard, ids: list[int], among: int) -> GuardState:
    """The state behind what the guard makes of a model that wants these ids, and says on."""
    state = guard.start(400)
    for token in ids:
        logits = torch.zeros((1, among))
        logits[0, token] = 20.0
        toolguard.enforce([state], logits)
        assert state.accept(int(logits.argmax()))
    return state


def words_in(name: str, guard: Guard) -> list[str]:
    """Control tokens that do not end what `echo` is told."""
    stops = {value.stop for value in guard.format.reader.values.values()}
    return sorted(guard.format.sayable - stops)


def read_in_pieces(guard: Guard, ids: list[int]) -> Turn:
    parser = guard.parser()
    for token in ids:
        parser.feed([token])
    end = parser.finish()[-1]
    assert isinstance(end, toolguard.TurnEnd)
    return end.turn


@pytest.mark.parametrize("name", NAMES)
def test_a_value_may_name_control_tokens(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """The same ids under the guard, and the same call by ids as by text."""
    other = controlled(tokenizer, name)
    guard = Guard.compile(name, ECHO, other)
    words = words_in(name, guard)
    if not words:
        pytest.skip("all of them end values")
    said = f"Use {words[0]} and `{words[-1]}` here."
    text = call(name, said)
    ids = [*written(other, text), guard.vocabulary.end_ids[0]]
    state = greedy(guard, ids, len(other))
    assert state.ids == ids
    assert len(state.quoted) == 2
    assert [item.action for item in state.interventions] == ["mention"] * 2
    turn = guard.read(ids)
    assert turn == read_in_pieces(guard, ids)
    assert turn.state == "healthy_call", turn.faults
    assert [each.arguments for each in turn.calls] == [{"text": said}]
    assert turn.calls == toolguard.read_turn(text, guard.format, guard.toolset).calls
    retraced = guard.start(400)
    assert all(retraced.retrace(token) for token in ids)


@pytest.mark.parametrize("name", NAMES)
def test_elsewhere_it_is_damage(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """As the first of a value, within a word of it, as a name, and where the value never ends."""
    other = controlled(tokenizer, name)
    guard = Guard.compile(name, ECHO, other)
    words = words_in(name, guard)
    if not words:
        pytest.skip("all of them end values")
    text, end = call(name, "Use MARK"), guard.vocabulary.end_ids[0]
    head, tail = text.split("Use MARK")
    for before, after in (("", tail), ("Use", tail), ("Use ", "")):
        ids = [*written(other, head + before + words[0]), *written(other, after), end]
        turn = guard.read(ids)
        assert turn == read_in_pieces(guard, ids)
        assert turn.state == "polluted"
        assert not turn.calls
    for before in ("", "Use"):
        start = written(other, head + before)
        token = written(other, words[0])
        assert greedy(guard, [*start, *token], len(other)).ids[len(start) :] != token


def test_ends_and_roles_are_never_words(tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile("hermes", ECHO, tokenizer)
    start = written(tokenizer, call("hermes", "Use MARK").split("MARK")[0])
    for text in ("<|im_end|>", "<|im_start|>"):
        token = written(tokenizer, text)
        assert greedy(guard, [*start, *token], len(tokenizer)).ids[len(start) :] != token
        turn = guard.read([*start, *token, *written(tokenizer, '."}}\n</tool_call>')])
        assert turn.state == "polluted"


def test_roles_are_words_beside_another(tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile("hermes", ECHO, tokenizer)
    end = guard.vocabulary.end_ids[0]
    for said, sound in (
        ("A <tool_call> and <|im_start|>user in it.", True),
        ("A <tool_call> and <|im_end|> in it.", False),
    ):
        ids = [*written(tokenizer, call("hermes", said)), end]
        state = greedy(guard, ids, len(tokenizer)) if sound else guard.start(400)
        assert (state.ids == ids) is sound
        turn = guard.read(ids)
        assert [each.arguments for each in turn.calls] == [{"text": said}] * sound


def test_a_schema_holds_for_what_a_control_token_spells(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    for schema, legal in (({"maxLength": 12}, False), ({"maxLength": 15}, True)):
        tools: list[dict[str, Any]] = copy.deepcopy(ECHO)
        tools[0]["parameters"]["properties"]["text"] |= schema
        guard = Guard.compile("hermes", tools, tokenizer)
        ids = written(tokenizer, call("hermes", "Use <tool_call>"))
        opener = guard.opener_ids[0]
        state = guard.start(200)
        place = len(ids) - 1 - ids[::-1].index(opener)
        assert all(state.accept(token) for token in ids[:place])
        assert (state.mention(opener) is not None) is legal


def test_a_word_of_a_value_is_rolled_back_with_its_token(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    guard = Guard.compile("hermes", ECHO, tokenizer)
    ids = written(tokenizer, call("hermes", "Use <tool_call> here"))
    place = len(ids) - 1 - ids[::-1].index(guard.opener_ids[0])
    state = greedy(guard, ids, len(tokenizer))
    twin = state.copy()
    state.rollback(len(ids) - place)
    fresh = guard.start(400)
    assert all(fresh.accept(token) for token in ids[:place])
    assert state.quoted == frozenset()
    assert (state.mask() == fresh.mask()).all()
    assert twin.quoted == {place}
    assert all(state.retrace(token) for token in ids[place:])


def test_an_unsure_model_is_held_to_the_mask(tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile("hermes", ECHO, tokenizer)
    state = guard.start(200)
    ids = written(tokenizer, call("hermes", "Use MARK").split("MARK")[0])
    assert all(state.accept(token) for token in ids)
    logits = torch.full((1, len(tokenizer)), -20.0)
    logits[0, guard.opener_ids[0]] = 1.0
    logits[0, written(tokenizer, "a here b")[:3]] = 0.9
    toolguard.enforce([state], logits)
    assert logits[0, guard.opener_ids[0]] == -torch.inf
