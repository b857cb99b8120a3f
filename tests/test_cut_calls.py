"""A name or a value that the budget ended, and not the model, is no call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardLogitsProcessor, GuardState, Toolset, Turn, WireFormat
from toolguard.formats.wire_format import format_names

TOOLS = [
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
NOISE = 64  # tokens that a model that has left its script likes by turns


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


@pytest.mark.parametrize("name", format_names())
def test_at_any_budget_a_call_is_the_models_own_or_none(
    tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    guard = Guard.compile(name, TOOLS, tokenizer, tool_choice="required")
    script = [*tokenizer(written(name, SENT))["input_ids"], guard.vocabulary.end_ids[0]]
    own = said(guard.read(script))
    assert own == [(call["name"], call["arguments"]) for call in SENT[-len(own) :]]
    least = len(guard.completion(())) + 1
    step = max(1, len(script) // 25)
    for budget in [*range(least, len(script), step), len(script) - 1]:
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
