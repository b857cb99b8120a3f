"""Recognises the wire format of a model from its chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from ..formats.wire_format import WireFormat, format_names
from ..grammar.engine import fast_tokenizer
from ..tools.toolset import Toolset
from .read import read_turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION = "Sentinel?"
_NAME = "get_sentinel"
_ID = "sentinel1"  # nine letters and digits, which Mistral's templates insist on
_ARGUMENTS = {"place": "sentinel town", "count": 417}
_WRITTEN = {key: str(value) for key, value in _ARGUMENTS.items()}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Sentinel.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "count": {"type": ["integer", "string"]}},
            "required": ["place", "count"],
        },
    },
}


def recognise(tokenizer: PreTrainedTokenizerBase) -> WireFormat:
    """The format whose parser reads back exactly a call that the chat template has rendered.

    Raises:
        FormatError: no format does, or several do; the message says what each one stumbled over.
    """
    turn = _rendered_turn(fast_tokenizer(tokenizer))
    if _NAME not in turn:
        raise FormatError(
            f"the chat template leaves calls out (it renders {turn[:40]!r}): name the wire format, "
            f"one of {', '.join(format_names())}"
        )
    misses: list[str] = []
    found: list[WireFormat] = []
    for name in format_names():
        wire_format = WireFormat.load(name)
        miss = _miss(wire_format, turn)
        if miss is None:
            found.append(wire_format)
        elif miss:
            misses.append(f"{name}: {miss}")
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(wire_format.name for wire_format in found)
        raise FormatError(f"several formats read the chat template's calls: {names}; name one")
    raise FormatError(
        f"no format reads the chat template's call {turn!r}; near misses: "
        + ("; ".join(misses) or "none")
        + ". Name the format, or write a grammar file for it (CONTRIBUTING.md)"
    )


def _rendered_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The assistant turn that calls the sentinel, as the template writes it."""
    question = [{"role": "user", "content": _QUESTION}]
    call = {"id": _ID, "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
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
    # What stands between the question and the turn; some templates move the tools about before it.
    between = before[before.rindex(_QUESTION) :] if _QUESTION in before else before
    if between in after:
        return after[after.rindex(between) + len(between) :]
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] == after[shared]:
        shared += 1
    return after[shared:]


def _miss(wire_format: WireFormat, turn: str) -> str | None:
    """What keeps the format from reading the turn: None if nothing does, '' if it is not near."""
    body = turn.rstrip()
    for end in wire_format.ends:
        body = body.removesuffix(end)
    toolset = Toolset.of([_TOOL])
    # Templates may put white space before a turn that no model would write.
    reads = [read_turn(text, wire_format, toolset) for text in (body.lstrip("\n"), body.strip())]
    read = next((read for read in reads if read.calls), reads[0])
    if not read.calls:
        return read.faults[0].message if read.calling and read.faults else ""
    if read.faults:
        return read.faults[0].message
    arguments = read.calls[0].arguments
    # Some templates write every value as a string.
    same = {key: str(value) for key, value in arguments.items()} == _WRITTEN
    return None if same and len(read.calls) == 1 else f"it reads {arguments}"
