"""Enforcement samples from the model's distribution restricted to what is legal, on either path."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, GuardState
from toolguard.policy.optimistic import choose

from .sizes import sizes


@sizes(4_000, 20_000)
@pytest.mark.parametrize("path", ["masked", "optimistic"])
@pytest.mark.parametrize("begun", ['<tool_call>\n{"name": "', "<tool_call>", ""])
def test_samples_follow_the_restricted_distribution(
    path: str,
    begun: str,
    size: int,
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, object]],
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    state = guard.start(200)
    for token in tokenizer(begun)["input_ids"]:
        assert state.accept(token)
    generator = torch.Generator().manual_seed(7)
    # A handful of tokens, legal and not, that are enough for the statistic; the others are far off.
    logits = torch.full((len(tokenizer),), -40.0)
    mask = torch.from_numpy(state.mask().copy())
    legal = (mask.unsqueeze(1) >> torch.arange(32) & 1).bool().flatten()[: len(tokenizer)]
    some = [*legal.nonzero()[:6, 0].tolist(), *(~legal).nonzero()[:6, 0].tolist()]
    logits[some] = torch.randn(len(some), generator=generator) * 1.5
    drawn = _draw(path, size, state, logits, generator)
    expected = logits.masked_fill(~legal, -math.inf).softmax(-1) * size
    counts = torch.bincount(torch.tensor(drawn), minlength=len(tokenizer))
    assert not counts[~legal].any()
    cells = [token for token in some if legal[token]]
    assert len(cells) > 1
    assert all(expected[token] > 5 for token in cells)
    statistic = sum(float((counts[t] - expected[t]) ** 2 / expected[t]) for t in cells)
    assert statistic < _critical(len(cells) - 1)


def _draw(
    path: str, size: int, state: GuardState, logits: torch.Tensor, generator: torch.Generator
) -> list[int]:
    def sampler(rows: torch.Tensor) -> list[int]:
        return torch.multinomial(rows.softmax(-1), 1, generator=generator)[:, 0].tolist()

    drawn: list[int] = []
    for _ in range(size // 1000):
        rows, states = logits.repeat(1000, 1), [state.copy() for _ in range(1000)]
        if path == "optimistic":
            drawn += choose(states, rows, sampler)
        else:
            toolguard.enforce(states, rows)
            drawn += sampler(rows)
    return drawn


def _critical(freedom: int) -> float:
    """The chi-square value that one in 10,000 exceeds (Wilson and Hilferty's approximation)."""
    part = 2 / (9 * freedom)
    return freedom * (1 - part + 3.719 * math.sqrt(part)) ** 3
