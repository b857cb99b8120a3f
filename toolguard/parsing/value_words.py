"""Control tokens that are words of an argument's value, as in `{"text": "Use <tool_call>"}`.

A model that means such a token as a word says the token, and sets it apart as any word; one that
loses its thread says it where its own text would have gone on, or instead of a value. So it is a
word behind a space, a line end that is escaped or an opening quote, and beside another such word.
A token that frames what others say is a word only there, in a value that has named one already.
The mask asks the same reader as whoever reads the ids, so both have one rule.
"""

from __future__ import annotations

import re
from collections.abc import Set

from ..formats.reader import SPACE
from .quoted import OPENING

TEXTS = frozenset({"VALUE", "LINES", "CDATA", "STRING"})
"""The slots whose values are text as it stands."""

_NEAR = 8
_APART = re.compile(rf"""(?: |\\[nt]|(?:^|[ (]|\\[nt])(?:\\?["'`*])+|[{OPENING}])\Z""")
_OPENING_ENDS = tuple(sign.encode()[-1:] for sign in OPENING)


def is_word(content: str, control: str, words: Set[str]) -> bool:
    """Whether a control token is a word of a value that begins so.

    Args:
        content: what there is of the value, as it is written.
        words: the control tokens that may be words there; others, beside one of them.
    """
    if not content.strip(SPACE) or content.endswith(control):
        return False
    apart = control in words and _APART.search(content[-_NEAR:]) is not None
    return apart or any(word in content for word in words)


def may_set_apart(end: bytes, quoted: bool) -> bool:
    """Whether a word may be set apart behind a text that ends so: a quick look, which leaves out
    nothing.

    Args:
        quoted: all values stand in quotes, so that those in a value are escaped.
    """
    quotes = (b'\\"', b"\\'") if quoted else (b'"',)
    ends = (b" ", b"'", b"`", b"*", b"\\n", b"\\t", *quotes, *_OPENING_ENDS)
    return end.endswith(ends) or end in (b"n", b"t", b'"')
