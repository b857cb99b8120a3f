"""What a repair is: its edits, how sure it is, and the turn before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..parsing.turn import Call, Turn

Confidence = Literal["exact", "minimal", "ambiguous", "refused"]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a turn's text.

    Attributes:
        span: what is replaced, in the text before (start, end); empty where something is put in.
        before: the text there.
        after: what stands there now; empty where something is left out.
        rule: what was done, e.g. `add_closer`, `drop_role`, `equals_to_colon`.
    """

    span: tuple[int, int]
    before: str
    after: str
    rule: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a turn.

    Attributes:
        wire_format: the name of the format it was read as, and is written in.
        before: the turn as it was, with its faults, and the calls that the parser could read.
        after: the turn as it is now, with the calls that may be run; the same object as `before`
            where nothing was changed. A turn that is refused or ambiguous keeps its text and its
            faults, and has no calls: one that could be read beside one that could not may be half
            of what was meant.
        text: the turn in its native format, without its end token: `after.raw`.
        confidence: `exact`: the calls stand in the source as they are given back, or there was
            nothing to repair; `minimal`: the one smallest repair; `ambiguous`: there are several,
            and nothing was changed; `refused`: there is none that can be proved.
        edits: what was changed, in the order of the text before; empty unless `after` is new.
        candidates: the calls of each possible repair, where it is ambiguous.
        reason: one line that says why nothing was repaired; empty if it was, or need not be.
    """

    wire_format: str
    before: Turn
    after: Turn
    confidence: Confidence
    edits: tuple[Edit, ...] = ()
    candidates: tuple[tuple[Call, ...], ...] = ()
    reason: str = ""

    @property
    def text(self) -> str:
        return self.after.raw

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids as sampled: a repair never re-tokenises what was sampled."""
        return self.before.ids

    def to_json(self) -> dict[str, Any]:
        """The repair as plain JSON values."""
        return {
            "wire_format": self.wire_format,
            "confidence": self.confidence,
            "reason": self.reason,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "edits": [
                {"span": list(e.span), "before": e.before, "after": e.after, "rule": e.rule}
                for e in self.edits
            ],
            "candidates": [
                [{"name": call.name, "arguments": call.arguments} for call in calls]
                for calls in self.candidates
            ],
        }
