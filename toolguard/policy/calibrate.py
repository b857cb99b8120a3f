"""Calibration: a damaged model's readiness to call, put back on the scale of the healthy one.

Training that over-amplifies the opener moves the odds at which a model decides between a call and a
reply, but hardly their order: what needs a call still has larger odds of one than what needs none.
So the odds are mapped to those of the healthy model at the same rank (quantile mapping), which
takes two profiles, recorded on the same prompts, and no second model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..decoding.state import GuardState
from ..errors import ProfileError
from ..report.report import Intervention
from .profile import Profile

_KNOTS = 200
_FEWEST = 50


class Calibration:
    """Maps the odds of the opener at the start of a turn; see `toolguard.generate`.

    Args:
        profile: of the model as it is, recorded with `toolguard profile`.
        healthy: of the model before the training that did the damage, recorded on the same prompts
            and with the same decoding.

    Raises:
        ProfileError: they are of different formats or tokenizers, or hold fewer than 50 turns that
            had to decide (none do where the format's opener is not one token).
    """

    def __init__(self, profile: Profile, healthy: Profile) -> None:
        if profile.fingerprint != healthy.fingerprint:
            raise ProfileError(
                f"profiles of {profile.wire_format!r} and {healthy.wire_format!r} with different "
                "fingerprints cannot calibrate each other: record both with the same tokenizer and "
                "format"
            )
        fewest = min(profile.decisions, healthy.decisions)
        if fewest < _FEWEST:
            raise ProfileError(
                f"a profile holds {fewest} turns that decided between a call and a reply, too few "
                f"to calibrate by: record {_FEWEST} or more, some of which need a call and some "
                "none"
            )
        ranks = (np.arange(min(fewest, _KNOTS)) + 0.5) / min(fewest, _KNOTS)
        self._from = np.array([profile.odds_quantile(rank) for rank in ranks])
        self._to = np.array([healthy.odds_quantile(rank) for rank in ranks])

    def odds(self, own: float) -> float:
        """The healthy model's log-odds of a call at the rank of the model's own."""
        inside = np.clip(own, self._from[0], self._from[-1])
        return float(np.interp(inside, self._from, self._to) + own - inside)

    def __call__(
        self, states: Sequence[GuardState], odds: Mapping[int, float], logits: torch.Tensor
    ) -> None:
        """Changes the logit of the opener, in place, and records in the states what that changed.

        Args:
            states: one per row.
            odds: the model's own log-odds of the opener (`opener_odds`).
            logits: of shape [batch, vocabulary], with illegal tokens at -inf.
        """
        guard = states[0].guard
        opener = guard.control_ids.get(guard.format.opener)
        for row, own in odds.items():
            states[row].opener_shift = self.odds(own) - own
        for row, state in enumerate(states):
            # Later in the text the opener's bias is what it was where the turn began.
            if not state.opener_shift or not (
                row in odds or (state.opener_shift < 0 and state.before_calls)
            ):
                continue
            before = int(logits[row].argmax())
            logits[row, opener] += state.opener_shift
            if int(logits[row].argmax()) != before:
                spelled = guard.vocabulary.text_of([before])
                reason = f"in health, the log-odds of a call differ by {state.opener_shift:+.1f}"
                state.interventions.append(
                    Intervention(len(state.ids), "text", spelled, before, None, "despike", reason)
                )
