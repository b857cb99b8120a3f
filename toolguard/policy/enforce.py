"""The policy `enforce`: hold every sequence of a batch to its grammar and its budget."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from ..decoding.batch import fill
from ..decoding.decision import opener_odds
from ..decoding.reading import Reading, Record
from ..decoding.state import GuardState
from ..decoding.watch import Watch
from ..report.report import Action, Intervention
from .calibrate import Calibration
from .despike import Despiker
from .mention import leave_mentions

PREFERRED = 16
"""How many of the likeliest legal tokens are tried when a budget is nearly spent."""


def enforce(states: Sequence[GuardState], logits: torch.Tensor) -> None:
    """Masks what is illegal, in place, and records in the states what that changed.

    Args:
        states: one per row; rows of states that are done are left as they are.
        logits: the model's own, floating point of shape [batch, vocabulary].
    """
    record(states, hold(states, logits))


def observe(
    states: Sequence[GuardState], logits: torch.Tensor, bitmask: torch.Tensor | None = None
) -> Reading:
    """Reads what a mask would take away, and changes nothing; `bitmask`: see `hold`."""
    masked = logits.clone()
    bitmask = fill(states) if bitmask is None else bitmask
    reading = Watch.of(states[0].guard).mask(masked, bitmask)
    reading.close(masked)
    return reading


def hold(
    states: Sequence[GuardState],
    logits: torch.Tensor,
    despiker: Despiker | None = None,
    calibration: Calibration | None = None,
    bitmask: torch.Tensor | None = None,
) -> Reading:
    """Masks what is illegal, in place; what the watch read is yet to be recorded.

    Args:
        bitmask: the states' masks, if they are filled already; they are changed.
    """
    bitmask = fill(states) if bitmask is None else bitmask
    leave_mentions(states, logits, bitmask)
    odds = opener_odds(states, logits) if calibration else {}
    raw = logits.clone() if despiker else logits
    tight = [row for row, state in enumerate(states) if state.tight()]
    traced = any(state.steps is not None for state in states)
    choices = bool(tight) or traced or despiker is not None
    reading = Watch.of(states[0].guard).mask(logits, bitmask, choices)
    if despiker:
        points = despiker.points(states, reading, logits)
        if points:
            despiker(states, points, raw[points], logits)
    if calibration:
        calibration(states, odds, logits)
    for row in tight:
        _narrow(states[row], logits[row])
    reading.close(logits)
    return reading


def ban(scores: torch.Tensor, tokens: Collection[int]) -> None:
    """Makes these tokens of one row impossible, as long as others are possible."""
    held = scores.clone()
    held[[*tokens]] = float("-inf")
    if held.max() > float("-inf"):
        scores.copy_(held)


def record(states: Sequence[GuardState], reading: Reading) -> None:
    """Adds a step's pressure and interventions to the states, before they take its tokens."""
    for state, found in zip(states, reading.records(), strict=True):
        note(state, found)


def note(state: GuardState, found: Record) -> None:
    """The same for one state."""
    if state.done:
        return
    state.pressure += found.pressure
    if found.wanted is not None and not found.kept:
        action: Action = "close" if found.legal else "mask"
        state.interventions.append(_intervention(state, found.wanted, found.mass, action))


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
    spelled = vocabulary.text_of([token])
    if action == "close":
        reason = f"{state.remaining} tokens are left: the turn has to be ended"
    elif token in vocabulary.end_ids:
        reason = "an empty turn" if region == "text" else f"the turn cannot end inside {region}"
    elif token in vocabulary.specials:
        reason = f"no control token of that kind belongs into {region} here"
    else:
        reason = f"not part of a legal {region} here"
    return Intervention(len(state.ids), region, spelled, token, mass, action, reason)
