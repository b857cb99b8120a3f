"""The watch on an accelerator, and wherever else NumPy does not see the logits.

What was read goes to the host without waiting for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .batch import apply
from .reading import LOG_GATE, Reading, Record

if TYPE_CHECKING:
    from .watch import Watch


class DeviceReading(Reading):
    """See `Reading`."""

    def __init__(self, watch: Watch, logits: torch.Tensor, bitmask: torch.Tensor) -> None:
        self.watch = watch
        words = bitmask.to(logits.device, non_blocking=True)
        self._every = every = torch.arange(len(logits), device=logits.device)
        self._wanted = wanted = logits.argmax(-1)
        self._controls = logits[:, watch.ids(logits.device)].float()
        inside = wanted < 32 * words.shape[1]
        word = words[every, (wanted >> 5).clamp_max(words.shape[1] - 1)]
        self._legal = (word >> (wanted & 31) & 1).bool() & inside
        gate = logits[every, wanted].float() + LOG_GATE
        self._passed = (self._controls > gate.unsqueeze(1)).any(1) | ~self._legal
        # An accelerator is not asked which rows passed: there the sum is cheaper than waiting.
        on_host = logits.device.type == "cpu"
        self._rows = self._passed.nonzero().flatten() if on_host else slice(None)
        self._raw = logits[self._rows].clone()
        self._flags: tuple[torch.Tensor, torch.cuda.Event | None] | None = None
        self._sums: tuple[torch.Tensor, torch.cuda.Event | None] | None = None
        apply(bitmask, logits)

    @property
    def wanted(self) -> torch.Tensor:
        return self._wanted

    @property
    def passed(self) -> torch.Tensor:
        return self._passed

    def close(self, masked: torch.Tensor) -> None:
        wanted, rows = self._wanted, self._rows
        kept = masked[self._every, wanted] > float("-inf")
        self._flags = self.watch.to_host(torch.stack([wanted, self._legal.long(), kept.long()]))
        total = self._raw.float().logsumexp(-1, keepdim=True)
        left = masked[rows].float().logsumexp(-1, keepdim=True)
        mass = (self._raw.gather(1, wanted[rows].unsqueeze(1)).float() - total).exp()
        masses = (self._controls[rows] - total).exp()
        sums = torch.cat([mass, (total - left).clamp_min(0.0), masses], 1)
        self._sums = self.watch.to_host(sums * self._passed[rows].unsqueeze(1))

    def records(self) -> list[Record]:
        """What was read, row by row. Waits for the copy only if it is not there yet."""
        assert self._flags is not None
        assert self._sums is not None
        flags = _arrived(self._flags)
        rows = range(len(flags[0]))[self._rows] if isinstance(self._rows, slice) else self._rows
        sums = dict(zip(map(int, rows), _arrived(self._sums), strict=True))
        nothing = [0.0, 0.0, *self.watch.nothing]
        found = []
        for row, (wanted, legal, kept) in enumerate(zip(*flags, strict=True)):
            mass, pressure, *masses = sums.get(row, nothing)
            found.append(Record(wanted, mass, legal > 0, kept > 0, pressure, masses))
        return found

    def ranks(self, tokens: Sequence[int]) -> list[int]:
        chosen = torch.tensor(tokens, device=self._wanted.device)
        found = (chosen == self._wanted).long()
        score = self._raw.gather(1, chosen[self._rows].unsqueeze(1))
        found[self._rows] = (self._raw > score).sum(1) + 1
        return found.tolist()


def _arrived(copy: tuple[torch.Tensor, torch.cuda.Event | None]) -> Any:
    values, event = copy
    if event is not None:
        event.synchronize()
    return values.tolist()
