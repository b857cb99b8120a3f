"""Recognises the wire format of a model from its chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from ..formats.wire_format import WireFormat, format_names
from ..tools.toolset import Toolset
from .read import read_turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NAME = "get_sentinel"
_ARGUMENTS = {"place": "sentinel town", "count": 417}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Sentinel.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["place", "count"],
        },
    },
}


def recognise(tokenizer: PreTrainedTokenizerBase) -> WireFormat:
    """The format whose parser reads back exactly a call that the chat template has rendered.

    Raises:
        FormatError: no format does, or several do; the message says what each one stumbled over.
    """
    turn = _rendered_turn(tokenizer)
    misses = []
    found = []
    for name in format_names():
        wire_format = WireFormat.load(name)
        miss = _miss(wire_format, turn)
        if miss is None:
            found.append(wire_format)
        else:
            misses.append(f"{name}: {miss}")
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(wire_format.name for wire_format in found)
        raise FormatError(f"several formats read the chat template's calls: {names}; name one")
    raise FormatError(
        f"no format reads the chat template's call {turn!r}: "
        + "; ".join(misses)
        + ". Name the format, or write a grammar file for it (CONTRIBUTING.md)"
    )


def _rendered_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The assistant turn that calls the sentinel, as the template writes it."""
    question = [{"role": "user", "content": "Sentinel?"}]
    call = {"type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
    answer: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        before = tokenizer.apply_chat_template(
            question, tools=[_TOOL], add_generation_prompt=True, tokenize=False
        )
        after = tokenizer.apply_chat_template([*question, answer], tools=[_TOOL], tokenize=False)
    except Exception as error:  # a template may raise anything
        raise FormatError(
            f"the chat template cannot render a tool call ({error}): name the wire format"
        ) from error
    assert isinstance(before, str)
    assert isinstance(after, str)
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] == after[shared]:
        shared += 1
    return after[shared:]


def _miss(wire_format: WireFormat, turn: str) -> str | None:
    """What keeps the format from reading the turn; None if it reads it exactly."""
    body = turn.strip()
    for end in wire_format.ends:
        body = body.removesuffix(end)
    read = read_turn(body, wire_format, Toolset.of([_TOOL]))
    if read.faults:
        return read.faults[0].message
    if len(read.calls) != 1:
        return f"it reads {len(read.calls)} calls"
    arguments = read.calls[0].arguments
    return None if arguments == _ARGUMENTS else f"it reads the arguments {arguments}"
