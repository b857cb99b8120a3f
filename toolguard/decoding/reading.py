"""What the watch read at one step of a batch, and what is kept of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..report.report import GATE, Step
from .state import GuardState

if TYPE_CHECKING:
    from .watch import Watch

LOG_GATE = math.log(GATE)


class Record(NamedTuple):
    """One row of a reading, on the host.

    Attributes:
        wanted: the model's own first choice; None where it was not to be found (`Watch.mask`).
        mass: its probability; 0 where the gate did not pass.
        legal: it is legal.
        kept: it is legal, and leaves room to end the turn within its budget.
        pressure: mask pressure, in nats.
        masses: the mass of each watched token; 0 where the gate did not pass.
    """

    wanted: int | None
    mass: float
    legal: bool
    kept: bool
    pressure: float
    masses: Sequence[float]


class Reading(ABC):
    """Make it with `Watch.mask`."""

    watch: Watch

    @property
    @abstractmethod
    def wanted(self) -> torch.Tensor:
        """The model's own first choices, where they were to be found: int64 of shape [batch]."""

    @property
    @abstractmethod
    def passed(self) -> torch.Tensor:
        """Where the gate passed, bool of shape [batch]."""

    @abstractmethod
    def close(self, masked: torch.Tensor) -> None:
        """Reads what the mask, and what came after it, left.

        Args:
            masked: the logits with illegal tokens at -inf, of shape [batch, vocabulary].
        """

    @abstractmethod
    def records(self) -> list[Record]:
        """What was read, row by row."""

    @abstractmethod
    def ranks(self, tokens: Sequence[int]) -> list[int]:
        """The rank of the chosen tokens among all, by the model's own logits.

        0 where the gate did not pass and it is not the first choice that was found.
        """

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

    def masses(self, record: Record) -> dict[str, float]:
        """The masses of one row that reach the gate, by the tokens' texts."""
        found = zip(self.watch.names, record.masses, strict=True)
        return {name: mass for name, mass in found if mass > GATE}

    def step(
        self,
        state: GuardState,
        record: Record,
        token: int,
        rank: int = 0,
        odds: float | None = None,
    ) -> Step:
        """What a report says of one row, before its state takes the token."""
        return Step(
            step=len(state.ids),
            region=state.region,
            position=state.position,
            token=state.guard.vocabulary.text_of([token]),
            token_id=token,
            masses=self.masses(record),
            illegal=-math.expm1(-record.pressure),
            pressure=record.pressure,
            rank=rank,
            odds=odds,
        )
