"""Which tokens carry structure, and which content."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..grammar.engine import Vocabulary

_PUNCTUATION = frozenset(b" \t\r\n\"'{}[]():,=<>/|")


def control_tokens(vocabulary: Vocabulary, logits: torch.Tensor) -> torch.Tensor:
    """Added tokens, and those that end a turn: bool of shape [vocabulary], beside the logits."""
    return _tokens(vocabulary, logits.shape[1], logits.device)[0]


def structure_tokens(vocabulary: Vocabulary, logits: torch.Tensor) -> torch.Tensor:
    """Those, and what is made of punctuation alone: bool of shape [vocabulary]."""
    return _tokens(vocabulary, logits.shape[1], logits.device)[1]


@lru_cache(maxsize=16)
def _tokens(
    vocabulary: Vocabulary, width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    controls = torch.zeros(width, dtype=torch.bool)
    controls[[*vocabulary.added.values(), *vocabulary.end_ids]] = True
    structure = controls.clone()
    for token in range(min(width, vocabulary.size)):
        spelled = vocabulary.bytes_of([token])
        if spelled and _PUNCTUATION.issuperset(spelled):
            structure[token] = True
    return controls.to(device), structure.to(device)
