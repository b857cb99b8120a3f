"""The watch: what a model's logits say about control tokens, before any mask.

A control token's probability is at most exp(its logit - the largest one). Only rows where that
bound passes the gate, or where the likeliest token is illegal, are worth a log-sum-exp over the
vocabulary. What was read is recorded once a token was chosen.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from ..grammar.engine import Vocabulary
from .arrays import on_numpy
from .device_reading import DeviceReading
from .guard import Guard
from .host_reading import HostReading
from .reading import Reading

_RING = 8  # how many readings may be on their way to the host


class Watch:
    """Reads batches of one vocabulary and wire format. Make it with `Watch.of`.

    Attributes:
        vocabulary: whose ids they are.
        tokens: the ids watched: the format's control tokens that are one id, and what ends a turn.
        names: their texts.
        nothing: their masses where the gate did not pass.
    """

    def __init__(self, vocabulary: Vocabulary, tokens: tuple[int, ...]) -> None:
        self.vocabulary = vocabulary
        self.tokens = tokens
        self.names = [vocabulary.text_of([token]) for token in tokens]
        self.nothing = (0.0,) * len(tokens)
        self._ids: dict[torch.device, torch.Tensor] = {}
        self._ring: list[torch.Tensor] = []
        self._next = 0

    @staticmethod
    def of(guard: Guard) -> Watch:
        """The watch of a guard; guards of one vocabulary and format share it."""
        tokens = (*guard.control_ids.values(), *guard.vocabulary.end_ids)
        return _watch(guard.vocabulary, tuple(dict.fromkeys(tokens)))

    def mask(self, logits: torch.Tensor, bitmask: torch.Tensor, choices: bool = True) -> Reading:
        """Reads a step, and sets the logits of illegal tokens to -inf, in place.

        Nothing waits for the device.

        Args:
            logits: the model's own, floating point of shape [batch, vocabulary].
            bitmask: the legal tokens, int32 of shape [batch, words], on the CPU.
            choices: whether to find the model's first choices even where it is clear without that
                that they are legal.
        """
        if on_numpy(logits):
            return HostReading(self, logits, bitmask, choices)
        return DeviceReading(self, logits, bitmask)

    def ids(self, device: torch.device) -> torch.Tensor:
        """The ids watched, on a device."""
        if device not in self._ids:
            self._ids[device] = torch.tensor(self.tokens, device=device)
        return self._ids[device]

    def to_host(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        """A copy on the host, complete once the event is."""
        if packed.device.type != "cuda":
            return packed.cpu(), None
        if len(self._ring) < _RING:
            self._ring.append(torch.empty(0))
        slot = self._next % _RING
        self._next += 1
        if self._ring[slot].shape != packed.shape:
            self._ring[slot] = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        self._ring[slot].copy_(packed, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return self._ring[slot], event


@lru_cache(maxsize=64)
def _watch(vocabulary: Vocabulary, tokens: tuple[int, ...]) -> Watch:
    return Watch(vocabulary, tokens)
