"""A finished turn: its reasoning, its text, its calls, its state and its faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..report.report import Report, State

STATES: tuple[State, ...] = ("healthy_call", "healthy_response", "polluted", "collapsed")

FaultKind = Literal[
    "empty_turn",
    "open_then_stop",
    "missing_close",
    "malformed_call",
    "stray_control",
    "text_after_call",
    "untagged_call",
    "unclosed_reasoning",
    "blank_run",
    "unknown_tool",
    "bad_arguments",
    "unfinished_turn",
]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that parses and satisfies its tool's schema.

    Attributes:
        name: one of the offered tools.
        arguments: its arguments.
        span: where it stands in the turn's `raw` text (start, end).
    """

    name: str
    arguments: dict[str, Any]
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fault:
    """A classified defect.

    Attributes:
        kind: what is wrong.
        span: where in the turn's `raw` text (start, end).
        message: one line that explains it.
    """

    kind: FaultKind
    span: tuple[int, int]
    message: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One finished assistant turn.

    Attributes:
        raw: the whole turn, control tokens spelled out, without its end token.
        text: the prose of it, stripped; of several messages, a line end between two.
        reasoning: what stood between the reasoning tags, likewise; empty if nothing did.
        calls: the calls that parse and validate, in order, also those of a faulty turn.
        calling: it makes a call, or tries to: there is an opener, or a call without one.
        state: one of the four structural states of arXiv 2606.26027, section 4.3.
        faults: what is wrong with it; empty in the healthy states.
        ids: the token ids as sampled, the end token included; empty if read from text.
        report: what the guard did; None if the turn was not decoded by toolguard.
    """

    raw: str
    text: str
    reasoning: str
    calls: tuple[Call, ...]
    calling: bool
    state: State
    faults: tuple[Fault, ...] = ()
    ids: tuple[int, ...] = ()
    report: Report | None = None

    def to_json(self) -> dict[str, Any]:
        """The turn as plain JSON values."""
        return {
            "raw": self.raw,
            "text": self.text,
            "reasoning": self.reasoning,
            "calls": [{"name": call.name, "arguments": call.arguments} for call in self.calls],
            "state": self.state,
            "faults": [
                {"kind": fault.kind, "span": list(fault.span), "message": fault.message}
                for fault in self.faults
            ],
            "report": self.report and self.report.to_json(),
        }
