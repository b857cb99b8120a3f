"""Turns to test with: the examples beside a grammar, and what random logits make."""

from __future__ import annotations

import json
from typing import Any

import torch
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState
from toolguard.formats.wire_format import GRAMMARS


def examples(name: str) -> list[dict[str, Any]]:
    """The examples beside the grammar of a format."""
    lines = (GRAMMARS / f"{name}.examples.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def random_turns(
    name: str,
    tools: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    data: st.DataObject,
    rows: int,
) -> list[str]:
    """Decodes a batch from random logits under a random request: what is wrong with each turn."""
    choice = data.draw(st.sampled_from(["auto", "required", "none", "first"]))
    guard = Guard.compile(
        name,
        tools,
        tokenizer,
        tool_choice=tools[0]["name"] if choice == "first" else choice,
        parallel=data.draw(st.booleans()),
        reasoning=data.draw(st.sampled_from(["auto", "open", "none"])),
    )
    budget = least_budget(guard) + data.draw(st.sampled_from([0, 1, 3, 10, 40, 120]))
    states = [guard.start(budget) for _ in range(rows)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    spike = data.draw(st.sampled_from([0.0, 4.0, 8.0]))
    controls = torch.tensor([*guard.control_ids.values(), *guard.vocabulary.end_ids])
    while not all(state.done or len(state.ids) >= budget for state in states):
        logits = torch.randn((rows, len(tokenizer)), generator=generator) * 3
        logits[:, controls] += spike * torch.rand((rows, 1), generator=generator)
        toolguard.enforce(states, logits)
        for state, token in zip(states, logits.argmax(-1).tolist(), strict=True):
            assert state.done or state.accept(token), (token, state.ids)
    return [_wrong(guard, state) for state in states]


def _wrong(guard: Guard, state: GuardState) -> str:
    turn = guard.read(state.ids, state.mentions)
    if not state.done:
        return f"did not end: {turn.raw!r}"
    if turn.faults or turn.state != ("healthy_call" if turn.calls else "healthy_response"):
        return f"{turn.state}, {turn.faults}: {turn.raw!r}"
    unwanted = bool(turn.calls) if guard.tool_choice == "none" else False
    missing = not turn.calls and guard.tool_choice not in ("auto", "none")
    if unwanted or missing or (len(turn.calls) > 1 and not guard.parallel):
        return f"{len(turn.calls)} calls, {guard.tool_choice=} {guard.parallel=}: {turn.raw!r}"
    return ""


def least_budget(guard: Guard) -> int:
    """The smallest budget that the guard accepts."""
    return len(guard.completion(())) + 1
