"""Mentions: control tokens that are words of prose, of reasoning or of a value, as where calls are
explained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..decoding.arrays import first_choices
from ..decoding.batch import fill, unpack
from ..decoding.row_mask import allow, allows
from ..decoding.state import GuardState
from ..decoding.watch import Watch
from ..report.report import Intervention


def leave_mentions(
    states: Sequence[GuardState], logits: torch.Tensor, bitmask: torch.Tensor
) -> None:
    """Lets a control token stand as a word: in prose where the model goes on with ordinary text, in
    a value or in reasoning where the model wants it (see `parsing.value_words`).

    What follows an opener decides: mass on the body of a call makes it one, and so does mass on
    control tokens, which is how a damaged model goes on.

    Args:
        states: one per row; those concerned go back from the call into the text.
        logits: the model's own, of shape [batch, vocabulary].
        bitmask: the legal tokens, int32 of shape [batch, words]; of those rows it is filled again.
    """
    doubtful = [row for row, state in enumerate(states) if state.may_mention]
    if not doubtful:
        return
    # Where the likeliest token of all is legal, greedy decoding goes on with a call.
    wanted = dict(zip(doubtful, first_choices(logits, doubtful), strict=True))
    bits = bitmask.numpy()
    rows = [row for row, token in wanted.items() if not allows(bits[row], token)]
    if not rows:
        return
    masses = logits[rows].float().softmax(-1)
    legal = unpack(bitmask[rows], logits.device)[:, : masses.shape[1]]
    masses = masses[:, : legal.shape[1]]
    prose = masses.masked_fill(legal, 0.0)
    watched = Watch.of(states[0].guard).tokens
    prose[:, [*watched]] = 0.0
    read = zip(rows, masses.amax(-1).tolist(), prose.sum(-1).tolist(), strict=True)
    for row, mass, words in read:
        state, token = states[row], wanted[row]
        share = mass if token in watched else words
        place = state.mention(token) if share > 0.5 else None
        if place is None:
            continue
        bitmask[row] = fill([state])[0]
        if place == len(state.ids):
            allow(bitmask[row].numpy(), token)
        ids = state.ids[place:] or [token]
        spelled = state.guard.vocabulary.text_of(ids).strip()
        reason = f"what follows is prose (mass {share:.3f}), not the body of a call"
        if place == len(state.ids):
            reason = f"a word of a value, or of reasoning (mass {share:.3f})"
        if place == len(state.ids) and state.region == "text":
            reason = f"a word in quotes, or beside an opener that is one (mass {share:.3f})"
        state.interventions.append(
            Intervention(place, state.region, spelled, ids[0], None, "mention", reason)
        )
