"""Proof: whatever a call says was said by the turn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..formats.reader import SPACE
from ..parsing.turn import Call
from .edits import Edit

_PUT_IN = ("add_structure", "add_closer", "add_opener", "add_quote", "restore_tag", "wrong_sign")
_QUOTES = ('"', "'", '<|"|>')
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


def doubtful(text: str, edits: Sequence[Edit], calls: Sequence[Call]) -> bool:
    """Whether what was put in may stand in the turn already, inside a string beside it: it took in
    what is out of its place.

    Args:
        text: the turn with the edits.
        calls: what it calls now.
    """
    strings = [said for call in calls for said in _said(call.arguments) if isinstance(said, str)]
    longer = 0
    for edit in edits:
        place = edit.span[0] + longer
        before, after = text[:place], text[place + len(edit.after) :]
        longer += len(edit.after) - len(edit.before)
        piece = edit.after.strip(SPACE)
        if edit.rule not in _PUT_IN or not piece:
            continue
        if piece in _QUOTES:
            if before.endswith(piece) or after.startswith(piece):
                return True  # an empty string that nobody wrote
        elif len(piece) > 1:
            if any(piece in said for said in strings):
                return True
        elif _in_string(before.rstrip(SPACE)[::-1], piece) or _in_string(after.lstrip(SPACE), piece):
            return True
    return False


def _in_string(text: str, sign: str) -> bool:
    """Whether a text begins with a quotation mark, and goes on with a sign, or one more mark."""
    for quote in (*_QUOTES, *(quote[::-1] for quote in _QUOTES)):
        if text.startswith(quote):
            inside = text[len(quote) :]
            return inside.lstrip(SPACE).startswith(sign) or (
                inside.startswith(quote) and sign in ":,"
            )
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
    yield text.replace("\\", "\\\\")
