"""Figures on a CPU as NumPy sees them: its arg-max and look-ups take a tenth of the time of torch's
there, and small arrays cost it less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def on_numpy(values: torch.Tensor) -> bool:
    """Whether NumPy can see the memory of a tensor. It has no bfloat16."""
    return values.device.type == "cpu" and values.dtype is not torch.bfloat16


def array(values: torch.Tensor, logits: torch.Tensor) -> Any:
    """The same memory as NumPy sees it, or the tensor itself where the logits beside it are not
    NumPy's. What is done with it has to mean the same to both."""
    return values.detach().numpy() if on_numpy(logits) else values


def log_sum_exp(logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Of these rows: float32 of shape [rows]. Where all is -inf, it is -inf."""
    if not on_numpy(logits):
        return logits[rows].float().logsumexp(-1)
    found = np.full(len(rows), -np.inf, np.float32)
    scores = logits.detach().numpy()
    for place, row in enumerate(rows):  # one stays in the cache
        top = scores[row].max()
        if top > -np.inf:
            shifted = np.subtract(scores[row], top, dtype=np.float32)
            found[place] = top + np.log(np.exp(shifted, out=shifted).sum())
    return torch.from_numpy(found)
