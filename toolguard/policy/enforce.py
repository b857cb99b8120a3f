"""The policy `enforce`: hold every sequence of a batch to its grammar and its budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..decoding.batch import apply, fill
from ..decoding.state import GuardState
from ..report.report import Action, Intervention

PREFERRED = 16
"""How many of the likeliest legal tokens are tried when a budget is nearly spent."""


def enforce(states: Sequence[GuardState], logits: torch.Tensor) -> None:
    """Masks what is illegal, in place, and records in the states what that changed.

    Args:
        states: one per row; rows of states that are done are left as they are.
        logits: the model's own, floating point of shape [batch, vocabulary].
    """
    wanted = logits.argmax(-1)
    total = logits.float().logsumexp(-1)
    top = logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1).float()
    apply(fill(states), logits)
    legal = (logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1) > float("-inf")).tolist()
    for row, state in enumerate(states):
        if state.tight():
            _narrow(state, logits[row])
    left = logits.float().logsumexp(-1)
    kept = logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1) > float("-inf")
    pressures, masses = (total - left).tolist(), (top - total).exp().tolist()
    for row, (token, stays) in enumerate(zip(wanted.tolist(), kept.tolist(), strict=True)):
        state = states[row]
        if state.done:
            continue
        state.pressure += max(pressures[row], 0.0)
        if not stays:
            action: Action = "close" if legal[row] else "mask"
            state.interventions.append(_intervention(state, token, masses[row], action))


def _narrow(state: GuardState, row: torch.Tensor) -> None:
    """Keeps what leaves room to end the turn within its budget."""
    best = row.topk(min(PREFERRED, row.shape[0]))
    ranked = [
        i
        for i, s in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        if s > float("-inf")
    ]
    kept = torch.tensor(state.narrow(ranked), device=row.device)
    scores = row[kept]
    row.fill_(float("-inf"))
    row[kept] = scores


def _intervention(state: GuardState, token: int, mass: float, action: Action) -> Intervention:
    region = state.region
    vocabulary = state.guard.vocabulary
    spelled = vocabulary.bytes_of([token]).decode("utf-8", "replace")
    if action == "close":
        reason = f"{state.remaining} tokens are left: the turn has to be ended"
    elif token in vocabulary.end_ids:
        reason = "an empty turn" if region == "text" else f"the turn cannot end inside {region}"
    elif token in vocabulary.specials:
        reason = f"no control token of that kind belongs into {region} here"
    else:
        reason = f"not part of a legal {region} here"
    return Intervention(len(state.ids), region, spelled, token, mass, action, reason)
