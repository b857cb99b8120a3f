"""The watch where NumPy sees the logits.

Rows are read and masked one after the other: the mask finds in the cache what was read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from .arrays import log_sum_exp
from .reading import LOG_GATE, Reading, Record
from .row_mask import RowMask, row_mask

if TYPE_CHECKING:
    from .watch import Watch

_COMMON, _USUAL = 4096, 32768
"""How many ids are read first. Byte-pair vocabularies put the commonest tokens there."""


@dataclass(slots=True)
class _Passed:
    """A row where the gate passed."""

    mask: RowMask
    controls: NDArray[Any]
    mass: float  # of the first choice
    total: float  # the log-sum-exp of all logits
    left: float = 0.0  # and of those that were left
    raw: NDArray[Any] | None = None  # the logits, where first choices were to be found


class HostReading(Reading):
    """See `Reading`."""

    def __init__(
        self, watch: Watch, logits: torch.Tensor, bitmask: torch.Tensor, choices: bool
    ) -> None:
        self.watch = watch
        self._wanted: list[int | None] = []
        self._legal: list[bool] = []
        self._kept: list[bool] = []
        self._passed: dict[int, _Passed] = {}
        batch = logits.detach().numpy()
        controls = batch.take(watch.tokens, axis=1)
        gates = (controls.max(1).astype(np.float64) - LOG_GATE).tolist()
        # The first choice is at least as likely as any token: one mostly tells all that is asked of
        # it, at a fraction of the cost of finding it. Of usual text, one of these is the choice.
        common = batch[:, :_COMMON].max(1).tolist()
        rows = zip(batch, bitmask.numpy(), gates, common, strict=True)
        for row, (scores, words, gate, least) in enumerate(rows):
            mask = row_mask(words, len(scores))
            wanted, legal = None, True
            clear = not choices and (
                _is_clear(least, gate, mask, scores)
                or _is_clear(scores[_COMMON:_USUAL].max(initial=least), gate, mask, scores)
            )
            if not clear:
                wanted = int(scores.argmax())
                legal = mask.allows(wanted)
                top = scores.item(wanted)
                if not legal or gate > top:
                    total = log_sum_exp(scores, top)
                    mass = math.exp(top - total) if total > -math.inf else 0.0
                    raw = scores.copy() if choices else None
                    self._passed[row] = _Passed(mask, controls[row], mass, total, raw=raw)
            mask.apply(scores)
            self._wanted.append(wanted)
            self._legal.append(legal)

    @property
    def wanted(self) -> torch.Tensor:
        return torch.tensor(self._wanted)

    @property
    def passed(self) -> torch.Tensor:
        return torch.tensor([row in self._passed for row in range(len(self._wanted))])

    def close(self, masked: torch.Tensor) -> None:
        rows = masked.detach().numpy()
        self._kept = [
            token is None or rows.item(row, token) > -math.inf
            for row, token in enumerate(self._wanted)
        ]
        for row, passed in self._passed.items():
            left = passed.mask.left(rows[row])
            passed.left = log_sum_exp(left, left.item(left.argmax()))

    def records(self) -> list[Record]:
        return [self._record(row) for row in range(len(self._wanted))]

    def _record(self, row: int) -> Record:
        wanted, legal, kept = self._wanted[row], self._legal[row], self._kept[row]
        passed = self._passed.get(row)
        if wanted is None or passed is None or passed.total == -math.inf:
            return Record(wanted, 0.0, legal, kept, 0.0, self.watch.nothing)
        masses = np.exp(passed.controls.astype(np.float64) - passed.total).tolist()
        pressure = max(0.0, passed.total - passed.left)
        return Record(wanted, passed.mass, legal, kept, pressure, masses)

    def ranks(self, tokens: Sequence[int]) -> list[int]:
        return [self._rank(row, token) for row, token in enumerate(tokens)]

    def _rank(self, row: int, token: int) -> int:
        if row not in self._passed:
            return int(token == self._wanted[row])
        raw = self._passed[row].raw
        assert raw is not None  # choices were asked for
        return int(np.count_nonzero(raw > raw[token])) + 1


def _is_clear(least: float, gate: float, mask: RowMask, scores: NDArray[Any]) -> bool:
    """Whether it is clear that the first choice, with a logit of `least` or more, is legal, and
    that no control token is near it."""
    return gate <= least and mask.illegal_below(least, scores)
