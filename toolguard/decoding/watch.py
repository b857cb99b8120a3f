"""The watch: what a model's logits say about control tokens, before any mask.

A control token's probability is at most exp(its logit - the largest one). Only rows where that
bound passes the gate, or where the likeliest token is illegal, are worth a log-sum-exp over the
vocabulary. What was read goes to the host without waiting for it, and is recorded once a token was
chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from ..grammar.engine import Vocabulary
from ..report.report import Step
from .guard import Guard
from .state import GuardState
from .structure import structure_tokens

GATE = 1e-3
"""The smallest control mass that is looked at."""
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
    """

    def __init__(self, vocabulary: Vocabulary, tokens: tuple[int, ...]) -> None:
        self.vocabulary = vocabulary
        self.tokens = tokens
        self._ids: dict[torch.device, torch.Tensor] = {}
        self._ring: list[torch.Tensor] = []
        self._next = 0

    @staticmethod
    def of(guard: Guard) -> Watch:
        """The watch of a guard; guards of one vocabulary and format share it."""
        tokens = (*guard.control_ids.values(), *guard.vocabulary.end_ids)
        return _watch(guard.vocabulary, tuple(dict.fromkeys(tokens)))

    def ids(self, device: torch.device) -> torch.Tensor:
        """The ids watched: int64 of shape [watched]."""
        if device not in self._ids:
            self._ids[device] = torch.tensor(self.tokens, device=device)
        return self._ids[device]

    def read(self, logits: torch.Tensor, bitmask: torch.Tensor) -> Reading:
        """Reads a step before its mask. No logit is changed, and nothing waits for the device.

        Args:
            logits: the model's own, floating point of shape [batch, vocabulary].
            bitmask: the legal tokens, int32 of shape [batch, words], on the CPU or beside `logits`.
        """
        top, wanted = logits.max(-1)
        controls = logits[:, self.ids(logits.device)].float()
        words = bitmask.to(logits.device, non_blocking=True).gather(1, (wanted >> 5).unsqueeze(1))
        legal = (words.squeeze(1) >> (wanted & 31) & 1).bool()
        bound = controls.amax(1) - top.float()
        passed = (bound > _LOG_GATE) | ~legal
        # Which rows passed is not asked of an accelerator: there the sum is cheaper than waiting.
        rows = passed.nonzero().squeeze(1) if logits.device.type == "cpu" else None
        raw = (logits if rows is None else logits[rows]).float()
        total = torch.full_like(bound, float("inf"))
        if rows is None:
            total = torch.where(passed, raw.logsumexp(-1), total)
        else:
            total[rows] = raw.logsumexp(-1)
        return Reading(self, wanted, legal, passed, rows, raw, total, top.float(), controls)

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
        wanted: torch.Tensor,
        legal: torch.Tensor,
        passed: torch.Tensor,
        rows: torch.Tensor | None,
        raw: torch.Tensor,
        total: torch.Tensor,
        top: torch.Tensor,
        controls: torch.Tensor,
    ) -> None:
        self.watch = watch
        self.wanted = wanted
        self.passed = passed
        self._legal, self._rows, self._raw = legal, rows, raw
        self._total, self._top, self._controls = total, top, controls
        self._host: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def close(self, masked: torch.Tensor) -> None:
        """Reads what the mask left, and sends all to the host.

        Args:
            masked: the logits with illegal tokens at -inf, of shape [batch, vocabulary].
        """
        kept = masked.gather(1, self.wanted.unsqueeze(1)).squeeze(1) > float("-inf")
        left = self._total.clone()
        if self._rows is None:
            left = torch.where(left.isinf(), left, masked.float().logsumexp(-1))
        else:
            left[self._rows] = masked[self._rows].float().logsumexp(-1)
        pressure = torch.where(left.isinf(), 0.0, self._total - left).clamp_min(0.0)
        columns = [
            self.wanted.float(),  # ids are exact in it up to 2**24
            (self._top - self._total).exp(),
            self._legal.float(),
            kept.float(),
            pressure,
        ]
        masses = (self._controls - self._total.unsqueeze(1)).exp()
        self._host = self.watch.to_host(torch.cat([torch.stack(columns, 1), masses], 1))

    def records(self) -> list[Record]:
        """What was read, row by row. Waits for the copy only if it is not there yet."""
        assert self._host is not None
        packed, event = self._host
        if event is not None:
            event.synchronize()
        return [
            Record(int(wanted), mass, legal > 0, kept > 0, pressure, masses)
            for wanted, mass, legal, kept, pressure, *masses in packed.tolist()
        ]

    def ranks(self, tokens: Sequence[int]) -> list[int]:
        """The rank of the chosen tokens among all, by the model's own logits.

        0 where the gate did not pass and it is not the first.
        """
        chosen = torch.tensor(tokens, device=self.wanted.device)
        found = (chosen == self.wanted).long()
        rows = slice(None) if self._rows is None else self._rows
        score = self._raw.gather(1, chosen[rows].unsqueeze(1))
        found[rows] = (self._raw > score).sum(1) + 1
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

    def trace(self, states: Sequence[GuardState], tokens: Sequence[int]) -> None:
        """Keeps the step in states that keep them, before they take the tokens."""
        names = [
            states[0].guard.vocabulary.bytes_of([token]).decode("utf-8", "replace")
            for token in self.watch.tokens
        ]
        records, ranks = self.records(), self.ranks(tokens)
        for state, record, token, rank in zip(states, records, tokens, ranks, strict=True):
            if state.steps is not None and not state.done:
                found = zip(names, record.masses, strict=True)
                state.steps.append(
                    Step(
                        step=len(state.ids),
                        region=state.region,
                        position=state.position,
                        token=state.guard.vocabulary.bytes_of([token]).decode("utf-8", "replace"),
                        token_id=token,
                        masses={name: mass for name, mass in found if mass > GATE},
                        illegal=-math.expm1(-record.pressure),
                        pressure=record.pressure,
                        rank=rank,
                    )
                )
