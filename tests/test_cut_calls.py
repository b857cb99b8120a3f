"""A name or a value that the budget ended, and not the model, is no call."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState, Toolset, Turn, WireFormat
from toolguard.formats.wire_format import format_names

from .sizes import sizes

TOOLS: list[dict[str, Any]] = [
    {
        "name": "transfer",
        "parameters": {
            "properties": {
                "amount": {"type": "number"},
                "unit": {"enum": ["euro", "euros", "dollar"]},
                "memo": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["amount"],
        },
    },
    {"name": "transfer_all", "parameters": {"properties": {"to": {"type": "string"}}}},
    {"name": "now"},
]
ARGUMENTS = {"unit": "euros", "memo": "flat 7 b", "tags": ["a", "bc"], "amount": 758.9}
SENT = [
    {"name": "transfer_all", "arguments": {"to": "Ann Lee"}},
    {"name": "transfer", "arguments": ARGUMENTS},
]


def written(name: str, calls: list[dict[str, Any]]) -> str:
    """These calls in a format, or the last of them where it has but one a turn."""
    wire_format = WireFormat.load(name)
    try:
        return toolguard.render(wire_format, calls)
    except toolguard.FormatError:
        return toolguard.render(wire_format, calls[-1:])


def said(turn: Turn) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in turn.calls]


def decoded(guard: Guard, script: list[int], budget: int) -> GuardState:
    """What a model writes that would say the script if the budget let it, and else anything."""
    state = guard.start(budget)
    seed = torch.Generator().manual_seed(budget)
    noise = torch.randn((1, len(guard.tokenizer)), generator=seed)
    while not state.done:
        logits = noise.clone()
        if state.ids == script[: len(state.ids)] != script:
            logits[0, script[len(state.ids)]] = 20.0
        toolguard.enforce([state], logits)
        assert state.accept(int(logits.argmax()))
    return state


@sizes(1, 12)
@pytest.mark.parametrize("name", format_names())
def test_at_any_budget_a_call_is_the_models_own_or_none(
    tokenizer: PreTrainedTokenizerBase, name: str, size: int
) -> None:
    guard = Guard.compile(name, TOOLS, tokenizer, tool_choice="required")
    script = [*tokenizer(written(name, SENT))["input_ids"], guard.vocabulary.end_ids[0]]
    own = said(guard.read(script))
    assert own == [(call["name"], call["arguments"]) for call in SENT[-len(own) :]]
    least = len(guard.completion(())) + 1
    for budget in Random(name).sample(range(least, len(script)), size):
        state = decoded(guard, script, budget)
        assert len(state.ids) <= budget
        turn = guard.read(state.ids, state.mentions, state.cut)
        assert said(turn) == own[: len(turn.calls)], (budget, turn)
        # It parses all the same, and says that it was cut.
        assert guard.read(state.ids, state.mentions).faults == ()
        assert state.cut is not None
        kinds = [fault.kind for fault in turn.faults]
        assert kinds == ["unfinished_turn"] * (turn.cut is not None), (budget, turn)
        assert turn.state == ("healthy_call" if turn.cut is None else "polluted")
        assert turn.cut is None or (turn.cut.cut and turn.cut not in turn.calls)
    # What is least in bytes may be some tokens longer than the model's own way.
    state = decoded(guard, script, len(script) + 8)
    assert (state.ids, state.cut) == (script, None)


@sizes(4, 40)
@pytest.mark.parametrize("name", format_names())
def test_wherever_a_turn_stops_its_calls_are_the_models_own(name: str, size: int) -> None:
    wire_format, tools = WireFormat.load(name), Toolset.of(TOOLS)
    text = written(name, SENT)
    own = said(toolguard.read_turn(text, wire_format, tools))
    for place in Random(name).sample(range(len(text)), size):
        for turn in (
            toolguard.read_turn(text[:place], wire_format, tools, ended=False),
            toolguard.repair(text[:place], tools, wire_format, ended=False).after,
        ):
            assert said(turn) == own[: len(turn.calls)], (text[:place], turn)


def test_a_call_whose_end_nothing_marks_is_none_before_the_turns_end() -> None:
    """Beam's: more arguments might have come."""
    beam, tools = WireFormat.load("beam"), Toolset.of(TOOLS)
    text = written("beam", [{"name": "now", "arguments": {}}])
    assert len(toolguard.read_turn(text, beam, tools).calls) == 1
    turn = toolguard.read_turn(text.removesuffix("<|call|>"), beam, tools, ended=False)
    assert (turn.calls, turn.state) == ((), "polluted")
    assert turn.cut == toolguard.Call("now", {}, (0, len(turn.raw)), cut=True)
    assert toolguard.Turn.of_json(turn.to_json()) == turn
    assert toolguard.repair(turn.raw, tools, beam, ended=False).after.calls == ()


def test_a_number_that_goes_on_is_not_closed() -> None:
    tools = Toolset.of(TOOLS)
    for begun in ("758.", "75e", "758.9e-"):
        for text in (f"<|tool_call_start|>[transfer(amount={begun}",):
            assert toolguard.repair(text, tools, "lfm2").after.calls == ()


def test_closing_what_is_structure_cuts_no_call(tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile("hermes", TOOLS, tokenizer)
    call = '<tool_call>\n{"name": "transfer", "arguments": {"amount": 7}'
    for begun, calls in ((call, 1), (call[:-1], 0), (call + "}\n</tool_call>", 1)):
        ids = tokenizer(begun)["input_ids"]
        state = guard.start(len(ids) + len(guard.completion(ids)) + 1)
        assert all(state.accept(token) for token in ids)
        while not state.done:
            logits = torch.zeros((1, len(tokenizer)))
            logits[0, tokenizer(" \n")["input_ids"]] = 5.0  # and so on, for ever
            logits[0, tokenizer(",")["input_ids"]] = 4.0
            toolguard.enforce([state], logits)
            assert state.accept(int(logits.argmax()))
        assert state.cut == len(ids)
        assert len(guard.read(state.ids, cut=state.cut).calls) == calls


def test_a_cut_that_is_taken_back_is_none(tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile("hermes", TOOLS, tokenizer, tool_choice="required")
    state = decoded(guard, [], len(guard.completion(())) + 1)
    assert state.cut == 0
    copied = state.copy()
    state.rollback(len(state.ids) - 1)
    assert state.cut == 0
    state.rollback(1)
    assert state.cut is None
    assert copied.cut == 0
