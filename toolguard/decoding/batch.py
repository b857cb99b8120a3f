"""Masks for a batch: filled in one call, applied in one operation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from ..grammar import matcher
from .arrays import on_numpy
from .row_mask import row_mask
from .state import GuardState


def fill(states: Sequence[GuardState]) -> torch.Tensor:
    """The masks of all states, of one vocabulary: int32 of shape [batch, words], on the CPU.

    Rows of states that are done or lost allow everything: what is sampled there is ignored. Budgets
    are not looked at; see `GuardState.mask`.
    """
    words = (states[0].guard.vocabulary.size + 31) // 32
    bitmask = np.empty((len(states), words), np.int32)
    open_rows = []
    for row, state in enumerate(states):
        if state.done or state.lost:
            bitmask[row] = -1
        elif (mask := state.still_mask()) is not None:
            bitmask[row] = mask
        else:
            open_rows.append((state.matcher, row))
    matcher.fill(open_rows, bitmask)
    return torch.from_numpy(bitmask)


def apply(bitmask: torch.Tensor, logits: torch.Tensor) -> None:
    """Sets the logits of illegal tokens to -inf, in place.

    Args:
        bitmask: int32 of shape [batch, words]; ids past its end are illegal.
        logits: floating point of shape [batch, vocabulary], on any device.
    """
    if on_numpy(logits):
        for scores, words in zip(logits.detach().numpy(), bitmask.numpy(), strict=True):
            row_mask(words, len(scores)).apply(scores)
        return
    width = min(logits.shape[1], 32 * bitmask.shape[1])
    illegal = ~unpack(bitmask, logits.device)[:, :width]
    logits[:, :width].masked_fill_(illegal, float("-inf"))
    logits[:, width:] = float("-inf")


def unpack(bitmask: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A bitmask as bool of shape [batch, 32 * words]."""
    octets = bitmask.view(torch.uint8).to(device)
    return _bits(device)[octets.int()].flatten(1)


@cache
def _bits(device: torch.device) -> torch.Tensor:
    """The eight bits of each byte, lowest first: bool of shape [256, 8]."""
    octets = torch.arange(256, dtype=torch.int32).unsqueeze(1)
    return (octets >> torch.arange(8, dtype=torch.int32) & 1).bool().to(device)
