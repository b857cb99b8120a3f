"""Optimistic enforcement: the model's own choice first, a mask only where it is refused.

Exact: a token t is chosen with p(t) at once, or, after a refusal, which has the illegal mass 1 - P,
with p(t) / P from what the mask leaves: p(t) + (1 - P) p(t) / P = p(t) / P, as under the mask
alone. It is AWRS (arXiv 2504.05410) with a mask for its second try.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..decoding.state import GuardState
from .enforce import hold, record


def choose(
    states: Sequence[GuardState],
    logits: torch.Tensor,
    sampler: Callable[[torch.Tensor], list[int]],
) -> list[int]:
    """A legal token for each row, from the model's distribution restricted to legal tokens.

    Rows that are refused get their mask, and what it took away is recorded in their states.

    Args:
        states: one per row, none of them done.
        logits: the model's own, floating point of shape [rows, vocabulary].
        sampler: picks a token per row, by softmax at some temperature; nothing that looks at ranks.
    """
    tokens = sampler(logits)
    refused = [
        row
        for row, (state, token) in enumerate(zip(states, tokens, strict=True))
        if not state.allows(token)
    ]
    if refused:
        held, part = [states[row] for row in refused], logits[refused]
        reading = hold(held, part)
        for row, token in zip(refused, sampler(part), strict=True):
            tokens[row] = token
        record(held, reading)
    return tokens
