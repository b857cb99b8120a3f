"""Picks tokens from logits: greedy, or at a temperature."""

from __future__ import annotations

import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class Sampler:
    """Greedy at temperature 0; otherwise samples, from what `top_k` and `top_p` leave."""

    def __init__(
        self, temperature: float, top_k: int, top_p: float, seed: int | None, device: torch.device
    ) -> None:
        self._sampling = bool(temperature)
        self._warpers = LogitsProcessorList()
        if temperature and temperature != 1:
            self._warpers.append(TemperatureLogitsWarper(temperature))
        if temperature and top_k:
            self._warpers.append(TopKLogitsWarper(top_k))
        if temperature and top_p < 1:
            self._warpers.append(TopPLogitsWarper(top_p))
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __call__(self, logits: torch.Tensor) -> list[int]:
        """One token for each row of logits [rows, vocabulary]."""
        if not self._sampling:
            return logits.argmax(-1).tolist()
        # The warpers are stateless: they do not read the ids that the interface asks for.
        no_ids = torch.empty(0, dtype=torch.long)
        scores = self._warpers(no_ids, logits.float())  # type: ignore[arg-type]
        picked = torch.multinomial(scores.softmax(-1), 1, generator=self._generator)
        return picked.squeeze(-1).tolist()
