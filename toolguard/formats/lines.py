"""Values on lines of their own (the slot LINES), and the markup that is a word in them.

A text about tags sets them apart in a line that goes on behind them: `Close it with </parameter>
and go on.` Markup that is meant stands beside a line end, or right beside a value or other markup.
The regular expressions are of what masks and Python share, but for `end`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

_BEFORE, _BEHIND = " \"'`*(", " \"'`*.,;:!?)"
"""What a word that is set apart stands behind, and before."""


class Closing(NamedTuple):
    """Where such a value ends.

    Attributes:
        end: the markup that ends it, where it is no word; not where that is yet to be seen.
        held: what is nowhere in such a value.
        last: what it does not end with.
    """

    end: str
    held: str
    last: str


@cache
def closing(markup: str) -> Closing:
    """Where a value ends that this markup ends."""
    text, before = re.escape(markup), re.escape(_BEFORE)
    return Closing(
        rf"(?:(?<![{before}]){text}|{text}(?![ \t]*[^ \t\r\n<]|[ \t]+\Z))",
        rf"[^{before}]{text}|{text}[ \t]*[\r\n<]",
        rf"{text}[ \t]*",
    )


def meant(opening: str) -> str:
    """What opens an argument, a regular expression, where it is no word."""
    return f"[^{re.escape(_BEFORE)}]{opening}|{opening}[^{re.escape(_BEHIND)}]"
