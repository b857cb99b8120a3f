"""Where a turn decides between a call and a reply, and by what odds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .state import GuardState
from .structure import control_tokens


def opener_odds(states: Sequence[GuardState], logits: torch.Tensor) -> dict[int, float]:
    """The log-odds of the opener against content, of the rows that stand at that decision.

    Args:
        states: one per row, of one vocabulary and wire format.
        logits: the model's own, of shape [batch, vocabulary].

    Returns:
        By row; nothing where the format's opener is not one token.
    """
    guard = states[0].guard
    opener = guard.control_ids.get(guard.format.opener)
    rows = [row for row, state in enumerate(states) if state.undecided]
    if opener is None or not rows:
        return {}
    own = logits[rows].float()
    content = own.masked_fill(control_tokens(guard.vocabulary, logits), float("-inf"))
    odds = own[:, opener] - content.logsumexp(-1)
    return dict(zip(rows, odds.tolist(), strict=True))
