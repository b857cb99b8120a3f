"""Where the mask stays the same, it is the engine's mask all the same."""

from __future__ import annotations

import copy
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState, WireFormat
from toolguard.decoding.batch import fill

from .sizes import sizes
from .turns import examples

FORMATS = toolguard.format_names()
WORDS = [
    "It is late.", " a", " 1 < 2", "<", " <b>x</b>", "\n", " ", "é", "😀", "[", "](x)", '{"', '"',
    "]", "<tool", "_call", ">", "\\", "all\n", "assistant", "f(", "=",
]  # fmt: skip


@sizes(4, 10)
@pytest.mark.parametrize("name", FORMATS)
def test_a_mask_that_is_known_is_the_one_that_the_engine_computes(
    name: str, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    @settings(max_examples=size, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), seed=st.integers(0, 2**32 - 1))
    def check(data: st.DataObject, seed: int) -> None:
        some_steps(name, tokenizer, data, seed)

    check()


def some_steps(
    name: str, tokenizer: PreTrainedTokenizerBase, data: st.DataObject, seed: int
) -> None:
    """Of a drawn request, from anywhere in a turn on."""
    example = data.draw(st.sampled_from(examples(name)))
    if data.draw(st.booleans()):
        tokenizer = with_controls(tokenizer, name)
    guard = Guard.compile(
        name,
        example["tools"],
        tokenizer,
        tool_choice=data.draw(st.sampled_from(["auto", "none"])),
        reasoning=data.draw(st.sampled_from(["auto", "open", "none"])),
    )
    state = guard.start(10_000)
    chance = random.Random(seed)
    turn = tokenizer(example["turn"], add_special_tokens=False)["input_ids"]
    walk(state, turn[: chance.randrange(len(turn) + 1)])
    for _ in range(25):
        state = step(state, chance)


@cache
def with_controls(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer with the format's control tokens as one token each."""
    other = copy.deepcopy(tokenizer)
    other.add_tokens([*WireFormat.load(name).controls], special_tokens=True)
    return other


def walk(state: GuardState, ids: list[int]) -> None:
    """Takes the tokens as far as they are legal."""
    for token in ids:
        check(state)
        if not state.accept(token):
            break


def step(state: GuardState, chance: random.Random) -> GuardState:
    """Does something with a state."""
    vocabulary, guard = state.guard.vocabulary, state.guard
    match chance.choice(["words"] * 5 + ["control", "spelled", "any", "back", "copy", "mention"]):
        case "words":
            walk(state, vocabulary.ids_of(chance.choice(WORDS).encode()))
        case "control":
            walk(state, chance.choices([*guard.control_ids.values(), *vocabulary.end_ids]))
        case "spelled":
            spelled = vocabulary.ids_of(chance.choice(guard.format.controls).encode())
            walk(state, spelled[: chance.randrange(1, len(spelled) + 1)])
        case "any":
            bits = np.unpackbits(state.mask().view(np.uint8), bitorder="little")
            walk(state, chance.choices(np.flatnonzero(bits).tolist() or vocabulary.end_ids))
        case "back":
            state.rollback(chance.choice([0, min(1, len(state.ids)), len(state.ids) // 4]))
        case "copy":
            other = state.copy()
            walk(other, vocabulary.ids_of(b" <b"))
        case "mention":
            for token in vocabulary.ids_of(chance.choice(WORDS).encode()):
                check(state)
                state.retrace(token)
    check(state)
    return state


def check(state: GuardState) -> None:
    """The masks are those of an engine that took every token but the words of prose."""
    if state.done:
        return
    engine = state.guard.compiled.start()
    taken = [token for place, token in enumerate(state.ids) if place not in state.mentions]
    assert engine.accept(taken) == len(taken)
    mask = engine.mask()
    assert np.array_equal(fill([state])[0].numpy(), mask), state.ids
    assert np.array_equal(state.mask(), mask), state.ids


def test_in_prose_the_mask_is_known_but_where_a_control_token_may_have_begun(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    state = guard.start(500)
    known = []
    for piece in ["\n", "It", " is 1", " <", " 2", ".<", "tool", "\n", "<tool_call>", "\n", '{"']:
        for token in tokenizer(piece, add_special_tokens=False)["input_ids"]:
            assert state.accept(token)
        known.append(state.still_mask() is not None)
    assert known == [False, True, True, False, True, False, False, True, False, False, False]
    state.rollback(len(state.ids) - 4)
    assert state.still_mask() is not None


def test_states_in_the_same_text_share_its_mask(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    masks = []
    for text in ("It is", "So there"):
        state = guard.start(500)
        for token in tokenizer(text)["input_ids"]:
            assert state.accept(token)
        masks.append(state.still_mask())
    assert masks[0] is not None
    assert masks[0] is masks[1]
