"""Proof: whatever a call says was said by the turn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..parsing.turn import Call

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
