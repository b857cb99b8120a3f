"""Control tokens in prose: words where prose goes on, and a call where anything else does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState, WireFormat

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
    state = guard.start(400)
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


def unchanged(guard: Guard, ids: list[int], among: int) -> GuardState:
    """The state behind a reply that the guard has to leave alone."""
    ids = [*ids, guard.vocabulary.end_ids[0]]
    state = follow(guard, ids, among)
    assert guard.vocabulary.text_of(state.ids) == guard.vocabulary.text_of(ids)
    assert state.ids == ids
    turn = guard.read(state.ids, state.mentions)
    assert turn.state == "healthy_response"
    assert turn.raw == guard.vocabulary.text_of(ids[:-1])
    return state


WORD = st.sampled_from(
    ["is a tag", ".", ",", ")", "`", "` or", ": see", "\n\nand", '" is', "é", "{"]
)


# The vocabulary has no token for `<tool_response>`.
CONTROL = st.sampled_from([c for c in WireFormat.load("hermes").controls if "response" not in c])


@settings(max_examples=60)
@given(parts=st.lists(st.tuples(CONTROL, WORD), min_size=1, max_size=4))
def test_prose_may_spell_any_control_token(
    parts: list[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile("hermes", [{"name": "ping"}], tokenizer)
    text = "It " + "".join(control + word for control, word in parts)
    state = unchanged(guard, guard.vocabulary.ids_of(text.encode()), len(tokenizer))
    assert {item.action for item in state.interventions} == {"mention"}


def test_a_reply_may_end_with_an_opener_that_is_spelled(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    for text in ("It is called <tool_call>", "So: `<tool_call>"):
        unchanged(guard, guard.vocabulary.ids_of(text.encode()), len(tokenizer))


@pytest.mark.parametrize("name", toolguard.format_names())
def test_prose_may_spell_the_opener_of_any_format(
    name: str, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    """Where the vocabulary has no such token, too."""
    wire_format = WireFormat.load(name)
    if not wire_format.opener or not wire_format.replies_plainly:
        pytest.skip(f"{name} has no opener, or puts a frame around replies")
    guard = Guard.compile(wire_format, tools, tokenizer)
    for text in ("Write `{}` here.", "A {} opens it, and a {}, too.", "Write {}\nand the name."):
        said = text.replace("{}", wire_format.opener)
        unchanged(guard, guard.vocabulary.ids_of(said.encode()), len(tokenizer))


@pytest.mark.parametrize(
    "text",
    [
        "Between <tool_call> and </tool_call> is the call.",
        "It ends with `</tool_call>`.",
        "What a tool says is in `<tool_response>` tags.",
        "It begins (<tool_call>) and ends (</tool_call>).",
        "It is `<tool_call>{...}</tool_call>`.",
        'So:\n```\n<tool_call>\n{"name": "function", "arguments": {}}\n</tool_call>\n```\n',
    ],
)
def test_closers_are_words_in_quotes_and_beside_openers_that_are(
    text: str, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    unchanged(guard, tokenizer(text)["input_ids"], len(tokenizer))


@pytest.mark.parametrize(
    "text", ["It is sunny.</tool_call>", "</tool_call>", "<|im_start|>user", "So: <tool_response>"]
)
def test_a_stray_control_token_is_no_word(
    text: str, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    ids = tokenizer(text)["input_ids"]
    state = follow(guard, ids, len(tokenizer))
    assert state.ids != ids
    assert state.mentions == frozenset()


THOUGHT = "They want <tool_call>\n</tool_call> explained."


def test_reasoning_may_name_what_calls_are_written_with(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer, reasoning="open")
    ids = [*tokenizer(f"{THOUGHT}</think>Hello!")["input_ids"], guard.vocabulary.end_ids[0]]
    state = follow(guard, ids, len(tokenizer))
    assert state.ids == ids
    assert len(state.mentions) == 2
    turn = guard.read(ids, state.mentions)
    assert (turn.state, turn.reasoning) == ("healthy_response", THOUGHT)


@pytest.mark.parametrize("before", ["I call it.", "I call it.\n", "I call it now:\n\n"])
def test_a_call_in_reasoning_is_not_opened(
    before: str, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer, reasoning="open")
    state = follow(guard, tokenizer(before)["input_ids"], len(tokenizer))
    assert told(state, guard.opener_ids[0], len(tokenizer)) != guard.opener_ids[0]


def test_an_opener_in_code_is_a_call_where_the_call_is_legal(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    call = '<tool_call>\n{"name": "get_time", "arguments": {"zone": "UTC"}}\n</tool_call>'
    ids = [*tokenizer("So:\n```\n" + call)["input_ids"], guard.vocabulary.end_ids[0]]
    state = follow(guard, ids, len(tokenizer))
    assert state.ids == ids
    assert guard.read(state.ids, state.mentions).calls[0].name == "get_time"


def test_a_turn_is_followed_where_its_mentions_are_not_known(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, object]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    text = "Between `<tool_call>{...}` and `</tool_call>` is the call."
    for ids in (tokenizer(text)["input_ids"], guard.vocabulary.ids_of(text.encode())):
        state = unchanged(guard, ids, len(tokenizer))
        other = guard.start(200)
        assert all(other.retrace(token) for token in state.ids)
        assert other.mentions == state.mentions
