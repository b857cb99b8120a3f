"""A model's key-value cache for a batch, from which tokens can be taken back by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from inspect import signature

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

# transformers 5.24 says `cache`; a model with code of its own may still take the old name.
_OLD = "past_key_values"
_NAME = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else _OLD


class Feed:
    """Feeds a batch of sequences to a model.

    What is taken back stays in the cache behind a hole in the attention mask: cropping would take
    the same columns from every row.

    Args:
        model: a causal language model whose cache can have holes, unless nothing is taken back.
        rows: how many sequences there are.
    """

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        self._seen = torch.zeros((rows, 0), dtype=torch.long, device=model.device)
        self._columns: list[list[int]] = [[] for _ in range(rows)]
        self._cache = None
        self._takes = _OLD if _OLD in signature(model.forward).parameters else _NAME

    def fed(self, row: int) -> int:
        """How many tokens of a row are in the cache."""
        return len(self._columns[row])

    def feed(self, queues: Sequence[Sequence[int]], last: int = 1) -> torch.Tensor:
        """Feeds every row its queue, right-aligned, in one forward pass.

        Args:
            queues: one per row; a row with nothing to feed may have an empty one.
            last: of how many last places the logits are wanted.

        Returns:
            The logits, of shape [rows, last, vocabulary].
        """
        device = self.model.device
        rows, width = len(queues), max(map(len, queues))
        block = torch.zeros((rows, width), dtype=torch.long)
        fed = torch.zeros((rows, width), dtype=torch.long)
        positions = torch.zeros((rows, width), dtype=torch.long)
        end = self._seen.shape[1] + width
        for row, queue in enumerate(queues):
            size, start = len(queue), self.fed(row)
            block[row, width - size :] = torch.tensor(queue)
            fed[row, width - size :] = 1
            positions[row, width - size :] = torch.arange(start, start + size)
            self._columns[row] += range(end - size, end)
        self._seen = torch.cat([self._seen, fed.to(device)], dim=1)
        output = self.model(
            input_ids=block.to(device),
            attention_mask=self._seen,
            position_ids=positions.to(device),
            use_cache=True,
            logits_to_keep=last,
            **{self._takes: self._cache},
        )
        self._cache = getattr(output, _NAME)
        logits: torch.Tensor = output.logits
        return logits

    def keep(self, row: int, tokens: int) -> None:
        """Takes back all of a row but its first tokens."""
        gone = self._columns[row][tokens:]
        if gone:
            self._seen[row, gone] = 0
            del self._columns[row][tokens:]

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows only."""
        chosen = torch.tensor(rows, dtype=torch.long, device=self.model.device)
        self._seen = self._seen[chosen]
        self._columns = [self._columns[row] for row in rows]
        if rows and self._cache is not None:
            self._cache.batch_select_indices(chosen)
