"""Proof: whatever a call says was said by the turn."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from ..formats.reader import SPACE
from ..formats.wire_format import WireFormat
from ..parsing.turn import Call, Turn
from .search import Way

_PUT_IN = ("add_structure", "add_closer", "add_opener", "add_quote", "restore_tag", "wrong_sign")
_CLOSING = {"}": "{", "]": "[", ")": "("}
QUOTES = ('"', "'", '<|"|>')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def invented(call: Call, source: str) -> str | None:
    """The first name, key or value of a call that its source does not hold; None if all are there.

    Strings may be spelled with the escapes of JSON, once or twice, or of Python; numbers may be
    written otherwise, as long as their value is the same.
    """
    numbers: set[float] | None = None
    for said in (call.name, *_said(call.arguments)):
        match said:
            case str():
                if not any(spelling in source for spelling in _spellings(said)):
                    return said
            case None | bool():
                words = {True: ("true", "True"), False: ("false", "False"), None: ("null", "None")}
                if not any(word in source for word in words[said]):
                    return str(said)
            case int() | float():
                if numbers is None:
                    numbers = {float(found[0]) for found in _NUMBER.finditer(source)}
                if float(said) not in numbers:
                    return str(said)
    return None


def spans_structure(call: Call) -> bool:
    """Whether a string of it ends as what comes before a string does: it took in what was lost."""
    texts = (said for said in _said(call.arguments) if isinstance(said, str))
    return any(text.rstrip().endswith(("=", "(", "{", "[")) for text in texts)


def doubtful(way: Way, turn: Turn, wire_format: WireFormat, keys: Collection[str]) -> bool:
    """Whether what was put in may be in the turn already, out of its place: inside a string, or in
    what no call has now.

    Args:
        way: the turn with the edits.
        turn: what it says now.
        keys: what arguments may be called.
    """
    strings = [s for call in turn.calls for s in _said(call.arguments) if isinstance(s, str)]
    put_in = [edit.after.strip(SPACE) for edit in way.edits]
    if any(
        edit.rule == "drop_control" and edit.before.strip(SPACE) in put_in for edit in way.edits
    ):
        return True  # the call was closed too early, and its own end left out
    stops = tuple(value.stop for value in wire_format.reader.values.values())
    longer = 0
    for edit in way.edits:
        place = edit.span[0] + longer
        before, after = way.text[:place], way.text[place + len(edit.after) :]
        longer += len(edit.after) - len(edit.before)
        piece = edit.after.strip(SPACE)
        if edit.rule not in _PUT_IN or not piece:
            continue
        if piece in QUOTES:
            # an empty string that nobody wrote, or one of what stands between strings
            empty = before.endswith(piece) or after.startswith(piece)
            if empty or any(_is_structure(said, wire_format) for said in strings):
                return True
        elif piece == "[" and "]" in put_in and before.rstrip(SPACE).endswith((":", "=")):
            return True  # a list that nobody wrote
        elif piece in "[{" and after.lstrip(SPACE)[:1] in ("]", "}"):
            return True  # nor an empty one, or an empty object
        elif len(piece) > 1:
            if any(piece in said for said in strings) or after.startswith(stops):
                return True  # or it begins a value that nobody wrote
        elif piece in _CLOSING:
            ends = [said for said in strings if said.rstrip().endswith(piece)]
            if any(said.count(piece) > said.count(_CLOSING[piece]) for said in ends):
                return True
        elif any(_in_string(t, piece) for t in (before.rstrip(SPACE)[::-1], after.lstrip(SPACE))):
            return True
    gone = [edit.before for edit in way.edits if edit.rule in ("cut_text", "drop_control")]
    if way.edits and turn.calls:
        gone.append(way.text[turn.calls[-1].span[1] :])
    return bool(keys) and any(_arguments(frozenset(keys)).search(text) for text in gone)


@lru_cache(maxsize=256)
def _arguments(keys: frozenset[str]) -> re.Pattern[str]:
    """One of these names, as that of an argument."""
    known = "|".join(map(re.escape, sorted(keys)))
    return re.compile(rf"(?<![\w.])(?:{known})(?:[\"']?\s?[:=]|,\S)")


def _is_structure(said: str, wire_format: WireFormat) -> bool:
    """Whether a string says nothing but signs, or a control token of the format."""
    return bool(said) and (not re.search(r"\w", said) or bool(wire_format.spelled.search(said)))


def _in_string(text: str, sign: str) -> bool:
    """Whether a text begins with a quotation mark, and goes on with a sign, or one more mark."""
    for quote in (*QUOTES, *(quote[::-1] for quote in QUOTES)):
        if text.startswith(quote):
            inside = text[len(quote) :]
            return inside.lstrip(SPACE).startswith(sign) or inside.startswith(quote)
    return False


def _said(value: Any) -> Iterator[Any]:
    """The keys and the scalars of a value."""
    match value:
        case Mapping():
            for key, inner in value.items():
                yield key
                yield from _said(inner)
        case list():
            for inner in value:
                yield from _said(inner)
        case _:
            yield value


def _spellings(text: str) -> Iterator[str]:
    yield text
    for ascii_only in (False, True):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        yield once.replace("/", "\\/")
    yield repr(text)[1:-1]
    # What a string may not hold was put in escapes, and quotes in it were.
    yield text.replace("'", "\\'")
    yield text.replace("&", "&amp;").replace('"', "&quot;")
    yield text.replace("\\", "\\\\")
