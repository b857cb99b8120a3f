"""Mentions: an opener in prose that opens no call, as in an explanation of tool calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..decoding.batch import fill, unpack
from ..decoding.state import GuardState
from ..decoding.watch import Watch
from ..report.report import Intervention


def leave_mentions(
    states: Sequence[GuardState], logits: torch.Tensor, bitmask: torch.Tensor
) -> None:
    """Lets an opener in prose stand as a word where the model goes on with ordinary text.

    What follows it decides: mass on the body of a call makes it one, and so does mass on control
    tokens, which is how a damaged model goes on.

    Args:
        states: one per row; those concerned go back from the call into the text.
        logits: the model's own, of shape [batch, vocabulary].
        bitmask: the legal tokens, int32 of shape [batch, words]; of those rows it is filled again.
    """
    rows = [row for row, state in enumerate(states) if state.opened_in_prose]
    if not rows:
        return
    mass = logits[rows].float().softmax(-1)
    call = unpack(bitmask[rows], logits.device)[:, : mass.shape[1]]
    call[:, [*Watch.of(states[0].guard).tokens]] = True
    mass = mass[:, : call.shape[1]]
    prose = mass.masked_fill(call, 0.0).sum(-1)
    # Where the likeliest token of all goes on with a call, greedy decoding would have made one.
    going_on = call.gather(1, mass.argmax(-1, keepdim=True)).squeeze(1)
    for row, share, goes_on in zip(rows, prose.tolist(), going_on.tolist(), strict=True):
        if share > 0.5 and not goes_on:
            state = states[row]
            place = state.mention()
            bitmask[row] = fill([state])[0]
            opener = state.guard.format.opener
            reason = f"what follows is prose (mass {share:.3f}), not the body of a call"
            state.interventions.append(
                Intervention(place, "text", opener, state.ids[place], None, "mention", reason)
            )
