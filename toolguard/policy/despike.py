"""De-spiking: structure is decided as often as a reference decides it, content is the model's own.

Reinforcement learning over-amplifies tokens that carry structure, also where they are legal: an
opener where no call is needed, an early closer. A reference (the model before that training, or a
smaller one) says what the odds of structure against content were. Where the model wants structure,
they are held to that; where it wants structure that the grammar forbids, its own odds say nothing
any more and the reference's stand for them. Of a reply that it did not want to give, the model's
odds say as little: what the reference takes from a call in text, it spends on its own words, and
the model goes on from there. Which structure it is, another argument or the end of
them, is the reference's choice: odds against content that neither model wants would not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..decoding.reading import Reading
from ..decoding.state import GuardState
from ..decoding.structure import control_tokens, structure_tokens
from ..report.report import Intervention

Reference = Callable[[Sequence[int]], torch.Tensor]
"""The reference's logits for the next token of some rows of a batch: [rows, vocabulary].

It reads the text of a turn as the tokenizer spells it (`Vocabulary.respelled`).
"""

_NOTHING = -20.0  # a log-probability that no choice is made by


class Despiker:
    """Holds the odds of structure to a reference's, at decision points only.

    Args:
        reference: see `Reference`; it has the model's tokenizer.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def points(
        self, states: Sequence[GuardState], reading: Reading, logits: torch.Tensor
    ) -> list[int]:
        """The rows that stand at a decision: the model wants structure, or what is illegal.

        Where the budget is nearly spent there is none left. Nor has the reference a say on a token
        that is part of a longer one of its own (`{` where it would have written `{"`): it finds
        that unlikely whatever it means.
        """
        structure = structure_tokens(states[0].guard.vocabulary, logits)
        wanted = structure[reading.wanted] | reading.passed
        likeliest = logits.argmax(-1).tolist()
        spells = states[0].guard.vocabulary.spells
        return [
            row
            for row, (state, at) in enumerate(zip(states, wanted.tolist(), strict=True))
            if at and not state.done and not state.tight() and spells(state.ids, likeliest[row])
        ]

    def __call__(
        self,
        states: Sequence[GuardState],
        rows: Sequence[int],
        raw: torch.Tensor,
        logits: torch.Tensor,
    ) -> None:
        """Changes the logits of these rows, in place, and records in the states what that changed.

        Args:
            raw: the model's own logits of these rows, of shape [rows, vocabulary].
            logits: of the whole batch, with illegal tokens at -inf.
        """
        vocabulary = states[0].guard.vocabulary
        structure = structure_tokens(vocabulary, logits)
        controls = control_tokens(vocabulary, logits)
        calling = torch.tensor(
            [[states[row].region == "call"] for row in rows], device=logits.device
        )
        some = torch.where(calling, structure, controls)
        masked = logits[rows].float()
        own = raw.float().log_softmax(-1)
        wanted = own.argmax(-1, keepdim=True)
        spiked = (masked.gather(1, wanted).isinf() & some.gather(1, wanted)).squeeze(1)
        legal = masked > float("-inf")
        own = own.masked_fill(~legal, float("-inf"))
        theirs = self._reference(rows).float()[:, : own.shape[1]]
        theirs = theirs.masked_fill(~legal, float("-inf")).log_softmax(-1)
        total, content = _masses(own, some)
        their_total, their_content = _masses(theirs, some)
        held = content + their_total - their_content.clamp_min(_NOTHING)
        held = torch.where(spiked.unsqueeze(1), held, torch.minimum(total, held))
        # Where there is no content to weigh against, structure is weighed against itself.
        alone = content.isinf() | (spiked.unsqueeze(1) & (their_content < _NOTHING))
        held = torch.where(alone, their_total, held)
        words = _spent(own, theirs, content, their_content, some)
        taken = ~calling & (spiked.unsqueeze(1) | (held < total))
        result = torch.where(taken, words, own)
        result = torch.where(some & legal, held + theirs - their_total, result)
        result = torch.where(alone & ~some, float("-inf"), result)
        before, after = masked.argmax(-1), result.argmax(-1)
        for place, row in enumerate(rows):
            token = int(before[place])
            if token != int(after[place]):
                mass = float(own[place, token].exp())
                states[row].interventions.append(_intervention(states[row], token, mass))
        logits[rows] = result.to(logits.dtype)


def _spent(
    own: torch.Tensor,
    theirs: torch.Tensor,
    content: torch.Tensor,
    their_content: torch.Tensor,
    some: torch.Tensor,
) -> torch.Tensor:
    """Log-probabilities of content, as likely as before in all: as much as it had is the model's
    own, and the rest of the step's mass was the reference's to spend."""
    mine = own.masked_fill(some, float("-inf"))
    other = theirs.masked_fill(some, float("-inf")) - their_content.clamp_min(_NOTHING)
    left = torch.log1p(-content.exp().clamp(max=1 - 1e-6))
    return content + torch.logaddexp(mine, left + other)


def _masses(scores: torch.Tensor, some: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-mass of some tokens, and of the others."""
    mass = scores.masked_fill(~some, float("-inf")).logsumexp(-1, keepdim=True)
    others = scores.masked_fill(some, float("-inf")).logsumexp(-1, keepdim=True)
    return mass, others


def _intervention(state: GuardState, token: int, mass: float) -> Intervention:
    spelled = state.guard.vocabulary.text_of([token])
    reason = "the reference gives it far smaller odds here"
    return Intervention(len(state.ids), state.region, spelled, token, mass, "despike", reason)
