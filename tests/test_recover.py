"""The policy `recover`: what is taken back, what is come back to, and what it gives back."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM

import toolguard
from toolguard import Guard, GuardState, Score, Turn
from toolguard.policy.despike import Despiker
from toolguard.policy.enforce import hold, record
from toolguard.policy.history import cleaned
from toolguard.policy.recover import RETRIED, RETRIES, Recovery
from toolguard.report.report import Policy

from .sizes import sizes

CALL = '<tool_call>\n{"name": "get_time", "arguments": {"zone": "UTC"}}\n</tool_call>'
OTHER = CALL.replace("UTC", "CET")


def write(recovery: Recovery, state: GuardState, ids: list[int]) -> GuardState:
    """Lets a turn go on with these ids, as far as it is not taken back."""
    for token in ids:
        before = len(state.ids)
        assert token not in recovery.banned(state.ids)
        assert state.accept(token)
        recovery.follow(state)
        if len(state.ids) != before + 1:
            break
    return state


@pytest.fixture
def guard(tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]) -> Guard:
    return Guard.compile("hermes", tools, tokenizer)


def test_a_sound_call_stays(guard: Guard, tokenizer: PreTrainedTokenizerBase) -> None:
    recovery = Recovery(guard)
    ids = [*tokenizer(f"{CALL}\n{OTHER}")["input_ids"], guard.vocabulary.end_ids[0]]
    state = write(recovery, guard.start(300), ids)
    assert state.ids == ids
    assert state.done
    assert recovery.retries == 0
    assert state.interventions == []


def test_a_call_that_was_asked_for_twice_stays(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    recovery = Recovery(guard)
    ids = [*tokenizer(f"{CALL}\n{CALL}")["input_ids"], guard.vocabulary.end_ids[0]]
    state = write(recovery, guard.start(300), ids)
    assert state.done
    assert recovery.retries == 0


def test_a_loop_of_calls_is_taken_back_to_the_first_and_cannot_recur(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    recovery = Recovery(guard)
    first = tokenizer(f"{CALL}\n")["input_ids"]
    end = guard.vocabulary.end_ids[0]
    state = write(recovery, guard.start(600), tokenizer("\n".join([CALL] * 6))["input_ids"])
    assert state.ids == first
    assert recovery.banned(state.ids) == {guard.opener_ids[0]}
    assert [item.action for item in state.interventions] == ["rollback"]
    state = write(recovery, state, [end])
    assert state.done
    assert len(guard.read(state.ids).calls) == 1
    assert recovery.retried_tokens <= RETRIED * len(tokenizer("\n".join([CALL] * 4))["input_ids"])


def test_a_loop_is_left_after_its_first_round(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    recovery = Recovery(guard)
    said = tokenizer("You. " * 40)["input_ids"]
    state = write(recovery, guard.start(300), said)
    assert recovery.retries == 1
    assert len(state.ids) < 12
    assert recovery.banned(state.ids)


def test_what_only_the_validator_sees_is_taken_back_to_its_last_value(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    numbers = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    tools = [{"name": "f", "parameters": {"properties": {"x": numbers}, "required": ["x"]}}]
    guard = Guard.compile("hermes", tools, tokenizer)
    assert "uniqueItems" in {it.keyword for it in guard.relaxations}
    recovery = Recovery(guard)
    text = '<tool_call>\n{"name": "f", "arguments": {"x": [17, 17]}}\n</tool_call>'
    ids = [*tokenizer(text)["input_ids"], guard.vocabulary.end_ids[0]]
    state = write(recovery, guard.start(300), ids)
    assert tokenizer.decode(state.ids).rstrip().endswith("[17,")
    assert recovery.banned(state.ids)


@pytest.mark.parametrize(
    ("value", "wanted", "left"),
    [
        ("Rome}}", "\n", True),
        ("Rome}}", "</tool_call>", True),
        ("{Rome}}", "</tool_call>", True),
        ("f() {}", "\n", False),  # what was opened there, too
        ("Rome", "</tool_call>", False),
        ("Rome}}", "s", False),  # nothing but a word
    ],
)
def test_brackets_that_end_a_call_from_inside_a_string_are_taken_back(
    value: str, wanted: str, left: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    tools = [{"name": "f", "parameters": {"properties": {"x": {"type": "string"}}}}]
    guard = Guard.compile("hermes", tools, tokenizer)
    recovery, state = Recovery(guard), guard.start(300)
    signs = value[len(value.rstrip("}")) :]
    head = f'<tool_call>\n{{"name": "f", "arguments": {{"x": "{value.removesuffix(signs)}'
    before = tokenizer(head)["input_ids"]
    closers = tokenizer.encode(signs) if signs else []
    state = write(recovery, state, [*before, *closers])
    logits = torch.zeros(1, len(tokenizer))
    logits[0, tokenizer.convert_tokens_to_ids(tokenizer.tokenize(wanted))[0]] = 20.0
    logits[0, tokenizer.convert_tokens_to_ids("s")] = 5.0
    record([state], hold([state], logits))
    state = write(recovery, state, [int(logits.argmax())])
    if left:
        assert state.ids == [*before, *closers][: -len(closers[-1:])]
        assert recovery.banned(state.ids) == {closers[-1]}
    assert recovery.retries == left


def test_a_turn_is_taken_back_a_few_times_at_most(
    guard: Guard, tokenizer: PreTrainedTokenizerBase
) -> None:
    recovery = Recovery(guard)
    state = guard.start(2000)
    for word in ("You. ", "Also. ", "Yes. ", "No. ", "So. ", "But. "):
        state = write(recovery, state, tokenizer(word * 40)["input_ids"])
    assert recovery.retries == RETRIES


@cache
def answers(name: str, size: int, policy: Policy, **options: Any) -> list[Turn]:
    path = toolguard.checkpoint(name)
    model = Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    cases = toolguard.held_out()[:size]
    return list(toolguard.answer(model, tokenizer, cases, policy=policy, **options))


def scored(name: str, size: int, policy: Policy, **options: Any) -> Score:
    turns = answers(name, size, policy, **options)
    assert all(turn.faults == () or turn.cut for turn in turns)
    assert all(turn.report and turn.report.retries <= RETRIES for turn in turns)
    return toolguard.score(toolguard.held_out()[:size], turns, 1.0)


@sizes(16, 60)
def test_a_healthy_model_loses_nothing(size: int, healthy: Qwen2ForCausalLM) -> None:
    plain = scored("healthy", size, policy="enforce")
    for reference in (None, healthy):
        score = scored("healthy", size, policy="recover", reference=reference)
        assert score.exact_match >= plain.exact_match
        assert score.no_call_kept >= plain.no_call_kept


@sizes(16, 60)
@pytest.mark.parametrize("name", ["open_then_stop", "opener_everywhere"])
def test_replies_come_back_where_the_opener_is_legal(
    name: str, size: int, healthy: Qwen2ForCausalLM
) -> None:
    enforced = scored(name, size, policy="enforce")
    referred = scored(name, size, policy="recover", reference=healthy)
    assert referred.no_call_kept >= 0.95
    assert referred.exact_match >= enforced.exact_match


@sizes(16, 104)
@pytest.mark.parametrize("name", ["json_rot", "open_then_stop", "opener_everywhere"])
def test_only_what_is_certainly_wrong_is_taken_back(name: str, size: int) -> None:
    """Where nothing is, a turn under `recover` is that under `enforce`, call or reply."""
    plain, tried = answers(name, size, "enforce"), answers(name, size, "recover")
    for before, after in zip(plain, tried, strict=True):
        assert after.report
        assert after.ids == before.ids or after.report.retries
        assert made(before) <= made(after)


def made(turn: Turn) -> set[str]:
    return {json.dumps([call.name, call.arguments], sort_keys=True) for call in turn.calls}


@sizes(8, 32)
def test_a_nearly_spent_budget_is_left_to_the_guard(size: int, healthy: Qwen2ForCausalLM) -> None:
    """What a despiker leaves of a lost model's logits need not be what ends the turn in time."""
    score = scored("skill_lost", size, "recover", reference=healthy, max_new_tokens=48)
    assert score.schema_valid == score.states["healthy_call"]  # the others the budget ended


def test_which_structure_it_is_is_the_references_choice(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Its odds against content that neither model wants do not tell."""
    names = {name: {"type": "string"} for name in ("x", "y")}
    tools = [{"name": "f", "parameters": {"properties": names, "required": ["x"]}}]
    state = Guard.compile("hermes", tools, tokenizer).start(200)
    for token in tokenizer('<tool_call>\n{"name": "f", "arguments": {"x": "Rome')["input_ids"]:
        assert state.accept(token)
    end, another, content = tokenizer.convert_tokens_to_ids(['"}}Ċ', '",', "s"])
    own = torch.full((1, len(tokenizer)), -30.0)
    theirs = own.clone()
    own[0, [end, another, content]] = torch.tensor([10.0, 5.0, 0.0])
    theirs[0, [end, another, content]] = torch.tensor([5.0, 10.0, -3.0])
    before = own.log_softmax(-1)[0, content]
    hold([state], own, Despiker(lambda rows: theirs))
    left = own.log_softmax(-1)[0]
    assert left[another] - left[end] == pytest.approx(5, abs=1e-3)
    assert left[content] == pytest.approx(float(before), abs=1e-3)
    assert [item.action for item in state.interventions] == ["despike"]


def test_a_reference_is_refused_where_nothing_asks_it(
    healthy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    with pytest.raises(toolguard.RequestError, match="a reference serves policy 'recover'"):
        toolguard.generate(
            healthy, tokenizer, [{"role": "user", "content": "Hi"}], tools, reference=healthy
        )


def test_corrupt_turns_of_the_history_are_cleaned(
    healthy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    asked = {"role": "user", "content": "What time is it in Rome?"}
    sound = {"role": "assistant", "content": "One moment."}
    broken = [
        {"role": "assistant", "content": content}
        for content in ("<tool_call>\n", "", f"Yes. {CALL} </tool_call><|im_start|>user")
    ]
    mended = {
        "role": "assistant",
        "content": "Yes.",
        "tool_calls": [
            {"type": "function", "function": {"name": "get_time", "arguments": {"zone": "UTC"}}}
        ],
    }
    toolset = toolguard.Toolset.of(tools)
    history = [asked, sound, *broken, asked]
    wire_format = toolguard.WireFormat.load("hermes")
    kept, found = cleaned(history, wire_format, toolset)
    assert found == 3
    assert kept == [asked, sound, mended, asked]
    turn = toolguard.generate(
        healthy, tokenizer, history, tools, policy="recover", max_new_tokens=60
    )
    same = toolguard.generate(healthy, tokenizer, kept, tools, policy="recover", max_new_tokens=60)
    assert turn.report is not None
    assert same.report is not None
    assert turn.ids == same.ids
    assert (turn.report.cleaned, same.report.cleaned) == (3, 0)


def test_a_reply_that_the_model_did_not_want_begins_as_the_reference_would_begin_it(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    """What is left of its odds behind a spike says little; a reply that it wants is its own."""
    guard = Guard.compile("hermes", tools, tokenizer)
    opener, mine, theirs = tokenizer.convert_tokens_to_ids(["<tool_call>", "s", "t"])
    for spike, chosen in ((20.0, theirs), (-1.0, mine)):
        state = guard.start(200)
        own = torch.full((1, len(tokenizer)), -30.0)
        reference = own.clone()
        own[0, [opener, mine, theirs]] = torch.tensor([spike, 0.0, -5.0])
        reference[0, [opener, mine, theirs]] = torch.tensor([-9.0, -5.0, 0.0])
        content = own.log_softmax(-1)[0, [mine, theirs]].logsumexp(-1)
        hold([state], own, Despiker(lambda rows, said=reference: said))
        assert int(own.argmax()) == chosen
        kept = own[0, [mine, theirs]].logsumexp(-1) - own[0].logsumexp(-1)
        assert float(kept) >= float(content)
        assert [item.action for item in state.interventions] == ["despike"] * (spike > 0)
