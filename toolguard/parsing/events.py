"""What a turn turns out to say while it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .turn import Call, Fault, Turn


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More prose; together they are the turn's `text`."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More reasoning; together they are the turn's `reasoning`."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins: the turn's number `index`, from 0, sound or not."""

    index: int


@dataclass(frozen=True, slots=True)
class CallName:
    """Its name, one of the offered tools; after its arguments where the model wrote them first."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of its arguments as JSON text; together they are what the call's `arguments` say.

    JSON comes as the model wrote it, character by character. Other encodings come as JSON, argument
    by argument.
    """

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """It is complete and valid. A call that is not gets a fault instead, and no end."""

    index: int
    call: Call


@dataclass(frozen=True, slots=True)
class FaultFound:
    """Something is wrong, and no more text can mend it."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The last event."""

    turn: Turn


Event: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | CallStart
    | CallName
    | ArgumentsDelta
    | CallEnd
    | FaultFound
    | TurnEnd
)
