"""A finished turn: its reasoning, its text, its calls, its state and its faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..report.report import Report, State

STATES: tuple[State, ...] = ("healthy_call", "healthy_response", "polluted", "collapsed")

FaultKind = Literal[
    # the turn
    "empty_turn",
    "unfinished_turn",
    "unclosed_reasoning",
    "call_in_reasoning",
    "run_on",
    "fabricated_response",
    "repetition_loop",
    # around a call
    "open_then_stop",
    "opener_after_prose",
    "opener_as_word",
    "orphan_closer",
    "untagged_call",
    "drifted_tag",
    "foreign_format",
    "foreign_token",
    "missing_recipient",
    "stray_control",
    "text_after_call",
    "blank_run",
    # in a call
    "missing_close",
    "doubled_opener",
    "role_in_call",
    "stray_prefix",
    "unknown_tool",
    "fused_name",
    "control_in_name",
    "wrong_call_id",
    "dropped_tag",
    "dropped_brackets",
    "bracket_mismatch",
    "unclosed_string",
    "curly_quotes",
    "equals_for_colon",
    "flattened_arguments",
    "code_as_value",
    "whitespace_loop",
    "double_encoded",
    "double_escaped",
    "bad_arguments",
    "malformed_call",
]
"""What is wrong; `where` it usually is, is what the headings say."""

Where: TypeAlias = Literal["call", "around", "turn"]

OF_TEXT: frozenset[FaultKind] = frozenset(
    {
        "untagged_call",
        "drifted_tag",
        "opener_as_word",
        "foreign_format",
        "foreign_token",
        "run_on",
    }
)
"""What may be wrong with a turn that every mask admits: text is free, and says something else than
it means."""

INVALID: tuple[FaultKind, ...] = ("bad_arguments", "double_encoded", "double_escaped")
"""The call is well-formed, and its tool's schema refuses it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that parses and satisfies its tool's schema.

    Attributes:
        name: one of the offered tools.
        arguments: its arguments.
        span: where it stands in the turn's `raw` text (start, end).
        cut: a budget, not the model, ended a name or a value of it, or the call itself where more
            might have come: it is not to be executed, and no turn has it among its `calls`.
    """

    name: str
    arguments: dict[str, Any]
    span: tuple[int, int]
    cut: bool = False

    def to_json(self) -> dict[str, Any]:
        """The call as plain JSON values."""
        return {"name": self.name, "arguments": self.arguments, "span": list(self.span)}


@dataclass(frozen=True, slots=True)
class Fault:
    """A classified defect.

    Attributes:
        kind: what is wrong.
        span: where in the turn's `raw` text (start, end).
        message: one line that explains it.
        where: in a call, around calls (what frames them), or of the turn as a whole.
        format: the name of the wire format that the turn was read as.
    """

    kind: FaultKind
    span: tuple[int, int]
    message: str
    where: Where
    format: str


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
        cut: the call that a budget ended, not the model: none of its calls, but an
            `unfinished_turn`.
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
    cut: Call | None = None
    ids: tuple[int, ...] = ()
    report: Report | None = None

    def to_json(self) -> dict[str, Any]:
        """The turn as plain JSON values."""
        return {
            "raw": self.raw,
            "text": self.text,
            "reasoning": self.reasoning,
            "calls": [call.to_json() for call in self.calls],
            "calling": self.calling,
            "state": self.state,
            "faults": [
                {
                    "kind": fault.kind,
                    "span": list(fault.span),
                    "message": fault.message,
                    "where": fault.where,
                    "format": fault.format,
                }
                for fault in self.faults
            ],
            "cut": self.cut and self.cut.to_json(),
            "ids": list(self.ids),
            "report": self.report and self.report.to_json(),
        }

    @staticmethod
    def of_json(fields: Mapping[str, Any]) -> Turn:
        """What `to_json` wrote."""
        calls = (Call(**{**call, "span": tuple(call["span"])}) for call in fields["calls"])
        faults = (Fault(**{**fault, "span": tuple(fault["span"])}) for fault in fields["faults"])
        cut = fields.get("cut")
        report = fields["report"] and Report.of_json(fields["report"])
        return Turn(
            **{
                **fields,
                "calls": tuple(calls),
                "cut": cut and Call(**{**cut, "span": tuple(cut["span"]), "cut": True}),
                "faults": tuple(faults),
                "ids": tuple(fields["ids"]),
                "report": report,
            }
        )
