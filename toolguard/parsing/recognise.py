"""Recognises the wire format of a model from what its tokenizer says about replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from ..formats.render import render
from ..formats.wire_format import WireFormat, format_names, guesses
from ..grammar.engine import fast_tokenizer
from ..tools.toolset import Toolset
from .chat_template import CALL, NAME, REPLY, Rendering, Shape, rendering, renderings
from .read import read_turn
from .turn import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TELLING = {"name": NAME, "arguments": {"place": " sentinel\n\ntown\n", "count": 417}}
"""What formats that write the same tags write in different ways: white space around a value."""
_TOOLSET = Toolset.of(
    [
        {
            "name": NAME,
            # Some templates write every value as a string, and some formats read it as one.
            "parameters": {
                "properties": {
                    "place": {"type": "string"},
                    "count": {"type": ["integer", "string"]},
                },
                "required": ["place", "count"],
            },
        }
    ]
)


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
    """The one of these formats whose parser reads the chat template's calls."""
    refusals: list[tuple[int, str]] = []
    names = ", ".join(each.name for each in formats)
    takes_objects = False
    for shape, made in renderings(tokenizer):
        if isinstance(made, FormatError):
            refusals.append((2, f"{made}: name the wire format, one of {names}"))
            continue
        if not made.shows_calls:
            why = f"the chat template leaves calls out (it renders {made.turn[:40]!r})"
            refusals.append((1, f"{why}: name the wire format, one of {names}"))
            continue
        # Where an object is printed as Python does, JSON text may be what is wanted, or calls are
        # not written so at all (Phi-4-mini): only tags of a format tell.
        doubtful = shape.as_text and takes_objects
        takes_objects = takes_objects or not shape.as_text
        suffixed = filter(None, (each.suffixed_in(made.turn) for each in formats))
        likely = [each for each in (*formats, *suffixed) if each.tagged or not doubtful]
        found, misses = _readers(made, likely)
        if len(found) > 1:
            found = _told_apart(tokenizer, shape, found)
        if len(found) == 1:
            return _variant(made, found[0])
        if found:
            several = ", ".join(each.name for each in found)
            raise FormatError(
                f"several formats read the chat template's calls: {several}; name one"
            )
        why = f"no format reads the chat template's call {made.turn!r}"
        how = "Name the format, or write a grammar file for it (CONTRIBUTING.md)"
        refusals.append((0, f"{why}; near misses: {_listed(misses)}. {how}"))
    raise FormatError(min(refusals, key=itemgetter(0))[1])


def _readers(
    made: Rendering, formats: Sequence[WireFormat]
) -> tuple[Sequence[WireFormat], Mapping[WireFormat, str | None]]:
    """The formats that read the calls, from the likeliest place on where any does, and what the
    others stumble over; where none does, from the first place."""
    near = [each for each in formats if each.may_call(made.called)]
    first: Mapping[WireFormat, str | None] = {}
    for start in made.starts:
        misses = {each: _miss(each, made, start) for each in near}
        first = first or misses
        found = [each for each, miss in misses.items() if miss is None]
        if found:
            return found, misses
    return [], first


def _told_apart(
    tokenizer: PreTrainedTokenizerBase, shape: Shape, formats: Sequence[WireFormat]
) -> Sequence[WireFormat]:
    """Those that also read a call whose values are written in different ways; all, if none does."""
    try:
        made = rendering(tokenizer, shape._replace(calls=(_TELLING,)))
    except FormatError:
        return formats
    return _readers(made, formats)[0] or formats


def _variant(made: Rendering, wire_format: WireFormat) -> WireFormat:
    """The format, or its variant that alone reads the template's reply: ERNIE's has tags."""
    names = [it for it in format_names(variants=True) if it.startswith(f"{wire_format.name}+")]
    for each in (wire_format, *map(WireFormat.load, names)) if names else ():
        for start in made.reply_starts:
            reads = _reads(each, made, made.replied[start:])
            if any(not read.faults and read.text.strip() == REPLY for read in reads):
                return each
    return wire_format


def _listed(misses: Mapping[WireFormat, str | None]) -> str:
    near = [f"{wire_format.name}: {miss}" for wire_format, miss in misses.items() if miss]
    return "; ".join(near) or "none"


def _misreading(tokenizer: PreTrainedTokenizerBase, wire_format: WireFormat) -> str | None:
    """What the response template makes of a call in the format: None if it is exactly that call,
    '' if it finds no call."""
    text = render(wire_format, [CALL])
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
            return name == NAME and _written(arguments) == _written(CALL["arguments"])
    return False


def _written(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Arguments as text: some templates write, or read, every value as a string."""
    return {key: str(value) for key, value in arguments.items()}


def _miss(wire_format: WireFormat, made: Rendering, start: int) -> str | None:
    """What keeps the format from reading exactly the calls in a turn that begins there: None if
    nothing does, '' if it is not near."""
    reads = _reads(wire_format, made, made.called[start:])
    misses = [_misread(read, made.calls) for read in reads]
    return None if None in misses else max(misses, key=bool)


def _reads(wire_format: WireFormat, made: Rendering, body: str) -> Sequence[Turn]:
    """What the format reads in a turn and all that follows, in the ways that it may be meant."""
    for end in {*wire_format.ends, made.end(wire_format)}:
        body = body.partition(end)[0] if end else body
    # Templates may put white space before a turn that no model would write.
    texts = dict.fromkeys((body.rstrip().lstrip("\n"), body.strip()))
    return [
        read_turn(text, wire_format, _TOOLSET, opened=opened)
        for text in texts
        for opened in (False, True)  # by the prompt, which may have said the opener already
    ]


def _misread(read: Turn, calls: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with the turn that was read: None if it makes exactly these calls."""
    if not read.calls:
        return read.faults[0].message if read.calling and read.faults else ""
    if read.faults:
        return read.faults[0].message
    if read.text or read.reasoning:
        return f"it reads {read.text or read.reasoning!r} beside the call"
    made = [_written(call.arguments) for call in read.calls]
    same = made == [_written(call["arguments"]) for call in calls]
    return None if same else f"it reads {[call.arguments for call in read.calls]}"
