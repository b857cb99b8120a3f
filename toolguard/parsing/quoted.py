"""Control tokens in quotes, in the prose of a text: words, as in an explanation of tool calls.

Token ids show what a model meant (see `toolguard.decoding.words`). Text does not: there an opener,
or what stands in a call and closes it, is a word where quotation marks stand on both sides, before
the first call. No call begins with a quotation mark.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from ..formats.reader import SPACE, words
from ..formats.wire_format import WireFormat

_CLOSING = {
    **{sign: sign for sign in "`'\"*"},
    **{"\u00ab": "\u00bb", "\u201c": "\u201d", "\u2018": "\u2019", "\u201e": "\u201c\u201d"},
    **{"\u300c": "\u300d", "(": ")"},
}
OPENING = "(\u00ab\u201c\u2018\u201e\u300c"
"""The quotation marks that only open."""
QUOTE = rf"""(?:(?:^|[{SPACE}(])[`'"*]+|{"|".join(map(re.escape, OPENING))})\Z"""
"""Where a text ends in a quotation mark that opens: a regular expression, of bytes as of text."""
_QUOTE = re.compile(QUOTE)
_NEAR = 8


class Quoted(NamedTuple):
    """A piece of text whose quoted control tokens are words.

    Attributes:
        text: the piece, as far as it is decided.
        rest: what more text may show to be a quoted control token.
        prose: no call has begun yet.
    """

    text: str
    rest: str
    prose: bool


def quoted(before: str, text: str, wire_format: WireFormat, final: bool) -> Quoted:
    """What is in quotes in a text.

    Args:
        before: what stands before it, in prose.
        final: nothing follows.
    """
    found = _controls(wire_format)
    if found is None:
        return Quoted(text, "", False)
    pieces: list[str] = []
    at = 0
    for control in found.finditer(text):
        closing = _closing(_near(before, text, control.start()))
        behind = text[control.end() : control.end() + 1]
        if closing and not behind and not final:
            return Quoted(
                "".join(pieces) + text[at : control.start()], text[control.start() :], True
            )
        if behind and behind in closing and not wire_format.body.match(behind):
            pieces += [text[at : control.start()], words(control[0])]
            at = control.end()
        elif control.lastgroup == "opener" or len(control[0]) == 1:
            return Quoted("".join(pieces) + text[at:], "", False)
    size = len(text) if final else _begun(before, text, at, wire_format)
    return Quoted("".join(pieces) + text[at:size], text[size:], True)


def _near(before: str, text: str, place: int) -> str:
    """The characters before a place in the text."""
    return before[-_NEAR:] + text[max(0, place - _NEAR) : place]


def _closing(before: str) -> str:
    """What closes the quotes that open right before; empty if none do."""
    return _CLOSING[before[-1]] if _QUOTE.search(before) else ""


def _begun(before: str, text: str, at: int, wire_format: WireFormat) -> int:
    """Where a control token in quotes begins that more text may complete."""
    longest = max(map(len, wire_format.controls))
    if not any(sign in _CLOSING for sign in (before[-longest:] + text)[-longest:]):
        return len(text)
    for control in wire_format.controls:
        for size in range(1, len(control)):
            start = len(text) - size
            begun = start >= at and text.endswith(control[:size])
            if begun and _closing(_near(before, text, start)):
                return start
    return len(text)


@cache
def _controls(wire_format: WireFormat) -> re.Pattern[str] | None:
    """The control tokens that prose may quote, the opener told from the others, and any marker;
    None where no token opens a call: there they are the turn's own frame."""
    opener = wire_format.opener
    if not opener:
        return None
    others = {wire_format.closer, *wire_format.inner} - {"", opener, *wire_format.ends}
    options = "|".join(map(re.escape, sorted(others, key=len, reverse=True)))
    rest = f"|{options}" if options else ""
    return re.compile(rf"(?P<opener>{re.escape(opener)}){rest}|[\udc00-\udcff]")
