"""The calls at the head of a turn, read without the parser, which goes on behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lark.parsers.lalr_parser_state import ParserState

from .turn import Call, Fault


class Head(NamedTuple):
    """Calls at the head of a turn.

    Attributes:
        calls: the sound ones.
        faults: what is wrong with the others.
        end: where the last of them ends.
        whole: nothing else is in the turn.
        state: how a parser stands behind as many calls; None if it cannot be told.
        known: how many calls that parser has read.
    """

    calls: Sequence[Call]
    faults: Sequence[Fault]
    end: int
    whole: bool
    state: ParserState[Any] | None
    known: int
