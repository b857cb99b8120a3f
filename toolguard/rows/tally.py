"""What became of many rows, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, get_args

from ..parsing.turn import STATES
from ..repair.edits import Confidence


@dataclass
class Tally:
    """Counts of rows, of their turns and of the faults of these.

    Attributes:
        rows: all rows.
        errors: those among them that were passed through, for want of a turn or of tools.
        before: turns by their state before.
        after: turns by their state after.
        confidence: turns by the confidence of their repair.
        faults: turns with a fault of that kind, by (fault, confidence).
    """

    rows: int = 0
    errors: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    confidence: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, said: Any) -> None:
        """Counts one row by its field `toolguard`; anything but records is an error."""
        self.rows += 1
        records = said if isinstance(said, list) else [said]
        if any(not isinstance(record, dict) or record.get("error") for record in records):
            self.errors += 1
            return
        for record in records:
            self.before[record["state_before"]] += 1
            self.after[record["state_after"]] += 1
            self.confidence[record["confidence"]] += 1
            for kind in {fault["kind"] for fault in record["faults"]}:
                self.faults[kind, record["confidence"]] += 1

    def merge(self, other: Tally) -> None:
        """Adds what another tally counted."""
        self.rows += other.rows
        self.errors += other.errors
        self.before += other.before
        self.after += other.after
        self.confidence += other.confidence
        self.faults += other.faults

    def fault_kinds(self) -> list[str]:
        """The kinds of faults, the most frequent first."""
        totals: Counter[str] = Counter()
        for (kind, _), count in sorted(self.faults.items()):
            totals[kind] += count
        return [kind for kind, _ in totals.most_common()]

    def to_json(self) -> dict[str, Any]:
        """The counts as plain JSON values."""
        levels = get_args(Confidence)
        return {
            "rows": self.rows,
            "errors": self.errors,
            "turns": self.before.total(),
            "states_before": {state: self.before[state] for state in STATES},
            "states_after": {state: self.after[state] for state in STATES},
            "confidence": {level: self.confidence[level] for level in levels},
            "faults": {
                kind: {level: self.faults[kind, level] for level in levels}
                for kind in self.fault_kinds()
            },
        }
