"""Whatever the model's logits are, a guarded turn ends, parses and validates."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard

from .strategies import toolsets

RUNS, ROWS = 250, 8


@settings(max_examples=RUNS, deadline=None, suppress_health_check=list(HealthCheck))
@given(tools=toolsets(), data=st.data())
def test_every_turn_ends_parses_and_validates(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]], data: st.DataObject
) -> None:
    random_turns("hermes", tools, tokenizer, data, ROWS)


def random_turns(
    name: str,
    tools: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    data: st.DataObject,
    rows: int,
) -> None:
    """Decodes a batch from random logits under a random request, and checks every turn."""
    choice = data.draw(st.sampled_from(["auto", "required", "none", "first"]))
    parallel = data.draw(st.booleans())
    guard = toolguard.Guard.compile(
        name,
        tools,
        tokenizer,
        tool_choice=tools[0]["name"] if choice == "first" else choice,
        parallel=parallel,
        reasoning=data.draw(st.sampled_from(["auto", "open", "none"])),
    )
    budget = least_budget(guard) + data.draw(st.sampled_from([0, 1, 3, 10, 40, 120]))
    states = [guard.start(budget) for _ in range(rows)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    spike = data.draw(st.sampled_from([0.0, 4.0, 8.0]))
    controls = torch.tensor([*guard.control_ids.values(), *guard.vocabulary.end_ids])
    while not all(state.done for state in states):
        logits = torch.randn((rows, len(tokenizer)), generator=generator) * 3
        logits[:, controls] += spike * torch.rand((rows, 1), generator=generator)
        toolguard.enforce(states, logits)
        for state, token in zip(states, logits.argmax(-1).tolist(), strict=True):
            if not state.done:
                assert state.accept(token)
        assert all(len(state.ids) <= budget for state in states)
    for state in states:
        turn = guard.read(state.ids)
        assert turn.faults == (), turn
        assert turn.state == ("healthy_call" if turn.calls else "healthy_response")
        if choice in ("required", "first"):
            assert turn.calls
        if choice == "none":
            assert not turn.calls
        if not parallel:
            assert len(turn.calls) <= 1


def least_budget(guard: toolguard.Guard) -> int:
    """The smallest budget that the guard accepts."""
    for budget in range(1, 2000):
        try:
            guard.start(budget)
        except toolguard.RequestError:
            continue
        return budget
    raise AssertionError("no budget is large enough")
