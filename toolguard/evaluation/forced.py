"""What teacher forcing found out about one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..report.report import Step


@dataclass(frozen=True)
class Forced:
    """How a model takes the right turn of a case.

    Attributes:
        case: the case's id.
        right: for each name and value of the calls, whether the model would have written it, given
            the right turn up to each of its tokens, and structure (control tokens, punctuation)
            left out.
        structure: the share of the other tokens that the model would have written.
        likelihood: the log-probability of the whole turn, in nats.
        tokens: the number of its tokens, its end included; 0 where no right turn is known.
        steps: what the watch reads along the turn.
    """

    case: str
    right: tuple[bool, ...]
    structure: float
    likelihood: float
    tokens: int
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "case": self.case,
            "right": list(self.right),
            "structure": self.structure,
            "likelihood": self.likelihood,
            "tokens": self.tokens,
            "steps": [step.to_json() for step in self.steps],
        }

    @staticmethod
    def of_json(row: Mapping[str, Any]) -> Forced:
        """What `to_json` wrote."""
        steps = tuple(Step(**step) for step in row["steps"])
        return Forced(**{**row, "right": tuple(row["right"]), "steps": steps})
