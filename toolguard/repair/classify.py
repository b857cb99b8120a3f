"""`toolguard.classify`: what a finished turn says, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..decoding.guard import Guard
from ..errors import RequestError
from ..formats.wire_format import WireFormat, guesses
from ..parsing.opening import Opened, opened_by, shown
from ..parsing.parser import TurnParser
from ..parsing.read import finished, read_turn
from ..parsing.recognise import recognise
from ..parsing.turn import Turn
from ..tools.toolset import ToolLike, Toolset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tools: TypeAlias = Toolset | Sequence[ToolLike]
_LEAST = 2
"""How many of its tags show a format whose opener is not there."""


def classify(
    turn: str | Sequence[int],
    tools: Tools,
    format: WireFormat | str = "auto",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    opened: Opened = "auto",
    prompt: str | None = None,
) -> Turn:
    """Reads a finished turn: its state (arXiv 2606.26027, section 4.3), its calls, its faults.

    Args:
        turn: its text, control tokens spelled out, without its end token; or its ids.
        tools: the tools that were offered (see `Toolset.of`).
        format: the model's wire format, or its name; `auto` takes the one that the tokenizer says,
            or that reads the turn best.
        tokenizer: the model's, for ids.
        opened: what the prompt had opened already (see `toolguard.read_turn`).
        prompt: the prompt, or its end, which says so.

    Raises:
        FormatError: there is no such format.
        ToolsetError: the tools are malformed.
        RequestError: ids without a tokenizer, or tools that the mask engine refuses; or no prompt
            opens that in the format.
        TokenizerError: the tokenizer is not a fast one and cannot be converted.
    """
    return read_as(turn, Toolset.of(tools), format, tokenizer, opened, prompt)[1]


def read_as(
    turn: str | Sequence[int],
    toolset: Toolset,
    format: WireFormat | str,
    tokenizer: PreTrainedTokenizerBase | None,
    opened: Opened = "auto",
    prompt: str | None = None,
    ended: bool = True,
) -> tuple[WireFormat, Turn]:
    """The format that a turn is read in, and what it says."""
    if isinstance(turn, str):
        if isinstance(format, str):
            format = _named(format, turn, toolset, opened, prompt)
        return format, read_turn(turn, format, toolset, opened=opened, prompt=prompt, ended=ended)
    if tokenizer is None:
        raise RequestError("ids say nothing without their tokenizer: give tokenizer=..., or text")
    if isinstance(format, str):
        format = recognise(tokenizer) if format == "auto" else WireFormat.load(format)
    spelling = Guard.compile(format, toolset, tokenizer).spelling
    opened = opened_by(prompt, format, opened)
    parser = TurnParser(format, toolset, opened=opened, spelling=spelling)
    parser.feed(turn)
    return format, finished(parser, None if ended else False)


def _named(
    name: str, text: str, toolset: Toolset, opened: Opened, prompt: str | None
) -> WireFormat:
    """The format of that name; `auto` is the first that reads calls, or else, of those whose opener
    is there, or what closes their reasoning, or what is left of a call, the one with most tags."""
    if name != "auto":
        return WireFormat.load(name)
    formats: Sequence[WireFormat] = guesses()
    if opened == "reply":
        formats = [each for each in formats if each.answer.opening]
    for each in formats:
        if any(control in text for control in each.controls) and each.may_call(text):
            turn = read_turn(text, each, toolset, opened=opened, prompt=prompt)
            if turn.calls and not turn.faults:
                return each
    found = [each for each in formats if each.opener and each.opener in text]
    found = found or [each for each in formats if shown(text, each)]
    hermes = WireFormat.load("hermes")
    if not found and toolset.any_named(text):
        # A call that lost its opener; a reply that writes of calls may say one tag, too.
        found = [each for each in formats if _closes(each, text) or _tags(each, text) >= _LEAST]
    ordered = [hermes, *found] if hermes in found or not found else found
    return max(ordered, key=lambda each: _tags(each, text))


def _closes(wire_format: WireFormat, text: str) -> bool:
    return bool(wire_format.closer) and wire_format.closer in text


def _tags(wire_format: WireFormat, text: str) -> int:
    """How many of a format's tags stand in a text."""
    return sum(tag in text for tag in wire_format.tags)
