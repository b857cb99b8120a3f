"""What is evaluated: anything that answers cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from ..formats.wire_format import WireFormat
from ..parsing.turn import Turn
from .cases import Case
from .forced import Forced

Mode = Literal["unguarded", "enforce", "recover", "repaired"]
"""How a model answers: as it is; under a policy; as it is, and what can be proved is repaired."""


class Subject(Protocol):
    """A model at hand, or one behind an endpoint.

    Attributes:
        wire_format: how it writes calls.
        modes: how it can answer, cheapest first.
        modes_in: how it can answer in another wire format, cheapest first.
        batch: how many cases are asked at a time.
    """

    wire_format: WireFormat
    modes: tuple[Mode, ...]
    modes_in: tuple[Mode, ...]
    batch: int

    def answer(self, cases: Sequence[Case], mode: Mode) -> Iterator[Turn]:
        """One turn a case, in order; unguarded ones with what the watch read, where it can."""

    def answer_in(
        self, cases: Sequence[Case], wire_format: WireFormat, mode: Mode
    ) -> Iterator[Turn]:
        """The same in another wire format; the messages describe the tools (`asked_in`)."""

    def force(self, cases: Sequence[Case]) -> Iterator[Forced]:
        """How it takes the right turns; fewer than cases, or none, where it cannot tell."""
