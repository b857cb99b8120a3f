"""Control tokens in quotes, in the prose of a text: words, as in an explanation of tool calls.

Token ids show what a model meant (see `toolguard.decoding.words`). Text does not: there an opener,
or what stands in a call and closes it, is a word where quotation marks stand on both sides, before
the first call. No call begins with a quotation mark. In code of Markdown an opener is a word, too,
where no call begins behind it, or none that names a tool before a code span ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from ..formats.reader import SPACE, begun_length, words
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
_TICKS = re.compile(r"`+|\n")
_FENCE = re.compile(r"```\w*")


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


class Code:
    """Follows a text, and knows what closes the code of Markdown that it ends in.

    Attributes:
        closing: the backticks that do: of a span on its line, or of a fenced block; empty where the
            text ends in none.
    """

    def __init__(self, text: str) -> None:
        self.closing = ""
        self.read(text)

    def read(self, text: str) -> None:
        """Goes on with more of the text."""
        for found in _TICKS.finditer(text):
            ticks = found[0]
            if ticks == "\n":
                self.closing = self.closing if self.is_block else ""
            elif not self.closing:
                self.closing = ticks
            elif ticks == self.closing or (self.is_block and len(ticks) > 2):
                self.closing = ""

    @property
    def is_block(self) -> bool:
        """Whether it goes on behind the line's end."""
        return len(self.closing) > 2


def says_words(text: str) -> bool:
    """Whether there are words in a text, but for the language of a fence."""
    return re.search(r"[^\W\d_]", _FENCE.sub("", text)) is not None


def quoted(
    before: str, text: str, wire_format: WireFormat, final: bool, names: Sequence[str]
) -> Quoted:
    """What is in quotes in a text, or in code.

    Args:
        before: what stands before it, in prose.
        final: nothing follows.
        names: of the tools.
    """
    found = _controls(wire_format)
    if found is None:
        return Quoted(text, "", False)
    pieces: list[str] = []
    at = 0
    code, said, read, mentioned = None, False, 0, False
    for control in found.finditer(text):
        if code is None:
            head = before + text[: control.start()]
            code, said = Code(head), says_words(head)
            mentioned = words(wire_format.opener) in before
        else:
            code.read(text[read : control.start()])
        read = control.end()
        closing = _closing(_near(before, text, control.start()))
        behind = text[control.end() : control.end() + 1]
        if closing and not behind and not final:
            return Quoted(
                "".join(pieces) + text[at : control.start()], text[control.start() :], True
            )
        if behind and behind in closing and not wire_format.body.match(behind):
            pieces += [text[at : control.start()], words(control[0])]
            at = control.end()
            continue
        if code.closing and (said or not code.is_block) and len(control[0]) > 1:
            told: bool | None = mentioned
            if control.lastgroup == "opener":
                told = _is_told(text, control.end(), code, wire_format, names, final)
                mentioned = mentioned or bool(told)
            if told is None:
                return Quoted(
                    "".join(pieces) + text[at : control.start()], text[control.start() :], True
                )
            if told:
                pieces += [text[at : control.start()], words(control[0])]
                at = control.end()
                continue
        if control.lastgroup == "opener" or len(control[0]) == 1:
            return Quoted("".join(pieces) + text[at:], "", False)
    size = len(text) if final else len(text) - begun_length(text[at:], wire_format.controls)
    return Quoted("".join(pieces) + text[at:size], text[size:], True)


def _is_told(
    text: str,
    start: int,
    code: Code,
    wire_format: WireFormat,
    names: Sequence[str],
    final: bool,
) -> bool | None:
    """Whether an opener in code that ends at `start` is a word; None if more text may show it."""
    behind = text[start:]
    begins = wire_format.body.match(behind)
    if begins and not begins[0].strip(SPACE):
        begins = wire_format.body.match(behind.lstrip(SPACE))
    if behind.strip(SPACE) and not begins:
        return True
    if code.is_block or "\n" in behind.partition(code.closing)[0]:
        return False if behind.strip(SPACE) or final else None
    inside, closed, _ = behind.partition(code.closing)
    if not closed:
        return False if final else None
    return not any(name in inside for name in names)


def _near(before: str, text: str, place: int) -> str:
    """The characters before a place in the text."""
    return before[-_NEAR:] + text[max(0, place - _NEAR) : place]


def _closing(before: str) -> str:
    """What closes the quotes that open right before; empty if none do."""
    return _CLOSING[before[-1]] if _QUOTE.search(before) else ""


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
