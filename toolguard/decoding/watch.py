"""The watch: what a model's logits say about control tokens, before any mask.

A control token's probability is at most exp(its logit - the largest one). Only rows where that
bound passes the gate, or where the likeliest token is illegal, are worth a log-sum-exp over the
vocabulary. What was read goes to the host without waiting for it, and is recorded once a token was
chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..grammar.engine import Vocabulary
from ..report.report import GATE, Step
from .arrays import array, log_sum_exp, on_numpy
from .guard import Guard
from .state import GuardState
from .structure import structure_tokens

_LOG_GATE = math.log(GATE)
_RING = 8  # how many readings may be on their way to the host


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a reading, on the host.

    Attributes:
        wanted: the model's own first choice.
        mass: its probability; 0 where the gate did not pass.
        legal: it is legal.
        kept: it is legal, and leaves room to end the turn within its budget.
        pressure: mask pressure, in nats.
        masses: the mass of each watched token; 0 where the gate did not pass.
    """

    wanted: int
    mass: float
    legal: bool
    kept: bool
    pressure: float
    masses: Sequence[float]


class Watch:
    """Reads batches of one vocabulary and wire format. Make it with `Watch.of`.

    Attributes:
        vocabulary: whose ids they are.
        tokens: the ids watched: the format's control tokens that are one id, and what ends a turn.
        names: their texts.
    """

    def __init__(self, vocabulary: Vocabulary, tokens: tuple[int, ...]) -> None:
        self.vocabulary = vocabulary
        self.tokens = tokens
        self.names = [vocabulary.text_of([token]) for token in tokens]
        self._ids: dict[torch.device, torch.Tensor] = {}
        self._ring: list[torch.Tensor] = []
        self._next = 0

    @staticmethod
    def of(guard: Guard) -> Watch:
        """The watch of a guard; guards of one vocabulary and format share it."""
        tokens = (*guard.control_ids.values(), *guard.vocabulary.end_ids)
        return _watch(guard.vocabulary, tuple(dict.fromkeys(tokens)))

    def _controls(self, logits: torch.Tensor) -> Any:
        """The ids watched, to index the logits with."""
        if logits.device not in self._ids:
            self._ids[logits.device] = torch.tensor(self.tokens, device=logits.device)
        return array(self._ids[logits.device], logits)

    def read(self, logits: torch.Tensor, bitmask: torch.Tensor) -> Reading:
        """Reads a step before its mask. No logit is changed, and nothing waits for the device.

        Args:
            logits: the model's own, floating point of shape [batch, vocabulary].
            bitmask: the legal tokens, int32 of shape [batch, words], on the CPU or beside `logits`.
        """
        on_host = logits.device.type == "cpu"
        words = bitmask if on_host else bitmask.to(logits.device, non_blocking=True)
        scores, words = array(logits, logits), array(words, logits)
        wanted = scores.argmax(-1)
        every = _every(logits)
        top, controls = scores[every, wanted], scores[:, self._controls(logits)]
        legal = words[every, wanted >> 5] >> (wanted & 31) & 1
        passed = (controls > (top + _LOG_GATE)[:, None]).any(1) | (legal == 0)
        # An accelerator is not asked which rows passed: there the sum is cheaper than waiting.
        rows = [row for row, at in enumerate(passed) if at] if on_host else [*range(len(logits))]
        return Reading(self, wanted, legal, passed, rows, logits, controls)

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


class Reading:
    """What the watch read at one step of a batch.

    Attributes:
        wanted: the model's own first choices, int64 of shape [batch].
        passed: where the gate passed, bool of shape [batch].
    """

    def __init__(
        self,
        watch: Watch,
        wanted: Any,
        legal: Any,
        passed: Any,
        rows: list[int],
        logits: torch.Tensor,
        controls: Any,
    ) -> None:
        self.watch = watch
        self._wanted, self._passed, self._legal = wanted, passed, legal
        self._rows, self._controls = rows, controls
        kept = torch.tensor(rows, dtype=torch.long, device=logits.device)
        self._raw = logits.index_select(0, kept) if rows else logits[:0]  # whole rows at a time
        self._flags: tuple[Any, torch.cuda.Event | None] | None = None
        self._sums: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    @property
    def wanted(self) -> torch.Tensor:
        return torch.as_tensor(self._wanted)

    @property
    def passed(self) -> torch.Tensor:
        return torch.as_tensor(self._passed)

    def close(self, masked: torch.Tensor) -> None:
        """Reads what the mask left, and sends all to the host.

        Args:
            masked: the logits with illegal tokens at -inf, of shape [batch, vocabulary].
        """
        every = _every(masked)
        kept = array(masked, masked)[every, self._wanted] > float("-inf")
        flags = self._wanted, self._legal, kept
        if on_numpy(masked):
            self._flags = np.array(flags), None
        else:
            self._flags = self.watch.to_host(torch.stack(flags))
        rows = self._rows
        if rows:
            total = log_sum_exp(self._raw, range(len(rows)))
            pressure = (total - log_sum_exp(masked, rows)).clamp_min(0.0)
            first = self._raw.gather(1, self.wanted[rows].unsqueeze(1)).squeeze(1)
            columns = torch.stack([(first - total).exp(), pressure], 1)
            controls = torch.as_tensor(self._controls)[rows].float()
            masses = (controls - total.unsqueeze(1)).exp()
            sums = torch.cat([columns, masses], 1) * self.passed[rows].unsqueeze(1)
            self._sums = self.watch.to_host(sums)

    def records(self) -> list[Record]:
        """What was read, row by row. Waits for the copy only if it is not there yet."""
        assert self._flags is not None
        sums = dict(zip(self._rows, _arrived(self._sums), strict=True)) if self._sums else {}
        nothing = [0.0] * (2 + len(self.watch.tokens))
        found = []
        for row, (wanted, legal, kept) in enumerate(zip(*_arrived(self._flags), strict=True)):
            mass, pressure, *masses = sums.get(row, nothing)
            found.append(Record(wanted, mass, legal > 0, kept > 0, pressure, masses))
        return found

    def ranks(self, tokens: Sequence[int]) -> list[int]:
        """The rank of the chosen tokens among all, by the model's own logits.

        0 where the gate did not pass and it is not the first.
        """
        chosen = torch.tensor(tokens, device=self.wanted.device)
        found = (chosen == self.wanted).long()
        score = self._raw.gather(1, chosen[self._rows].unsqueeze(1))
        found[self._rows] = (self._raw > score).sum(1) + 1
        return found.tolist()

    def content(self, raw: torch.Tensor, tokens: Sequence[int]) -> list[float]:
        """How likely the chosen tokens were as content, structure left out; nan: it is structure.

        Args:
            raw: the model's own logits, of shape [batch, vocabulary].

        Returns:
            Log-probabilities.
        """
        structure = structure_tokens(self.watch.vocabulary, raw)
        kept = raw.float().masked_fill(structure, float("-inf"))
        chosen = torch.tensor(tokens, device=raw.device).unsqueeze(1)
        found = (kept.gather(1, chosen).squeeze(1) - kept.logsumexp(-1)).tolist()
        return [math.nan if value == -math.inf else value for value in found]

    def trace(
        self, states: Sequence[GuardState], tokens: Sequence[int], odds: Mapping[int, float]
    ) -> None:
        """Keeps the step in states that keep them, before they take the tokens.

        Args:
            odds: see `opener_odds`.
        """
        records, ranks = self.records(), self.ranks(tokens)
        for row, (state, record, token, rank) in enumerate(
            zip(states, records, tokens, ranks, strict=True)
        ):
            if state.steps is not None and not state.done:
                state.steps.append(self.step(state, record, token, rank, odds.get(row)))

    def step(
        self,
        state: GuardState,
        record: Record,
        token: int,
        rank: int = 0,
        odds: float | None = None,
    ) -> Step:
        """What a report says of one row, before its state takes the token."""
        found = zip(self.watch.names, record.masses, strict=True)
        return Step(
            step=len(state.ids),
            region=state.region,
            position=state.position,
            token=state.guard.vocabulary.text_of([token]),
            token_id=token,
            masses={name: mass for name, mass in found if mass > GATE},
            illegal=-math.expm1(-record.pressure),
            pressure=record.pressure,
            rank=rank,
            odds=odds,
        )


def _every(logits: torch.Tensor) -> Any:
    """The numbers of the rows, to index with."""
    if on_numpy(logits):
        return np.arange(len(logits))
    return torch.arange(len(logits), device=logits.device)


def _arrived(copy: tuple[Any, torch.cuda.Event | None]) -> Any:
    values, event = copy
    if event is not None:
        event.synchronize()
    return values.tolist()
