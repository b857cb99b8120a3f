"""Recognises the wire format of a model from what its tokenizer says about replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from ..formats.render import render
from ..formats.wire_format import WireFormat, format_names, guesses
from ..grammar.engine import fast_tokenizer
from ..tools.toolset import Toolset
from .read import read_turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION = "Sentinel?"
_NAME = "get_sentinel"
_ID = "sentinel1"  # nine letters and digits, which Mistral's templates insist on
_ARGUMENTS = {"place": "sentinel town", "count": 417}
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
    """The format that the tokenizer's templates agree on for one sentinel call.

    A response template (`tokenizer.parse_response`) wins: the format is the one whose call it reads
    back exactly. Where it reads those of several formats, or of none, or there is no such template,
    it is the format whose parser reads back exactly the call that the chat template has rendered.

    Raises:
        FormatError: no format does, or several do; the message says what each one stumbled over.
        TokenizerError: the tokenizer is not a fast one and cannot be converted.
    """
    tokenizer = fast_tokenizer(tokenizer)
    formats = [WireFormat.load(name) for name in format_names()]
    # transformers before 5.13 knows no response templates
    if getattr(tokenizer, "response_template", None) is None:
        return _by_chat_template(tokenizer, formats)
    try:
        tokenizer.get_response_parser(prefix="")
    except ValueError as error:
        raise FormatError(
            f"the response template is malformed ({error}): correct it, or set "
            "tokenizer.response_template to None"
        ) from error
    misses = {wire_format: _misreading(tokenizer, wire_format) for wire_format in formats}
    read = [wire_format for wire_format, miss in misses.items() if miss is None]
    if len(read) == 1:
        return read[0]
    try:
        return _by_chat_template(tokenizer, read or formats)
    except FormatError as error:
        likely = [wire_format for wire_format in guesses() if wire_format in read]
        if len(likely) == 1:
            return likely[0]
        names = ", ".join(wire_format.name for wire_format in read) or "no format"
        raise FormatError(
            f"the response template reads a call as written in {names} (near misses: "
            f"{_listed(misses)}); {error}"
        ) from error


def _by_chat_template(
    tokenizer: PreTrainedTokenizerBase, formats: Sequence[WireFormat]
) -> WireFormat:
    """The one of these formats whose parser reads the chat template's call."""
    turn = _rendered_turn(tokenizer)
    if _NAME not in turn:
        raise FormatError(
            f"the chat template leaves calls out (it renders {turn[:40]!r}): name the wire format, "
            f"one of {', '.join(wire_format.name for wire_format in formats)}"
        )
    suffixed = filter(None, (wire_format.suffixed_in(turn) for wire_format in formats))
    misses = {wire_format: _miss(wire_format, turn) for wire_format in (*formats, *suffixed)}
    found = [wire_format for wire_format, miss in misses.items() if miss is None]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(wire_format.name for wire_format in found)
        raise FormatError(f"several formats read the chat template's calls: {names}; name one")
    raise FormatError(
        f"no format reads the chat template's call {turn!r}; near misses: {_listed(misses)}. "
        "Name the format, or write a grammar file for it (CONTRIBUTING.md)"
    )


def _listed(misses: Mapping[WireFormat, str | None]) -> str:
    near = [f"{wire_format.name}: {miss}" for wire_format, miss in misses.items() if miss]
    return "; ".join(near) or "none"


def _misreading(tokenizer: PreTrainedTokenizerBase, wire_format: WireFormat) -> str | None:
    """What the response template makes of a call in the format: None if it is exactly that call,
    '' if it finds no call."""
    call = {"name": _NAME, "arguments": _ARGUMENTS}
    text = render(wire_format, [call])
    miss = ""
    for end in ("", *wire_format.ends):  # some templates need the end to know a call closed
        try:
            read = tokenizer.parse_response(text + end, prefix="")
        except Exception:  # a template may raise anything over a call in another format
            continue
        calls, content = read.get("tool_calls"), read.get("content")
        if not content and _is_sentinel(calls):
            return None
        if calls:
            miss = f"it reads the calls {calls} and the text {content!r}"
    return miss


def _is_sentinel(calls: Any) -> bool:
    match calls:
        case [{"function": {"name": str(name), "arguments": dict(arguments)}}]:
            return name == _NAME and _written(arguments) == _written(_ARGUMENTS)
    return False


def _written(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Arguments as text: some templates write, or read, every value as a string."""
    return {key: str(value) for key, value in arguments.items()}


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
    same = _written(arguments) == _written(_ARGUMENTS)
    return None if same and len(read.calls) == 1 else f"it reads {arguments}"
