"""Where a control token may be a word of prose, as in an explanation of tool calls.

An opener in prose is a mention if the model goes on with ordinary text (design.md, decision 1).
Prose also spells control tokens with ordinary tokens, and sets what else a call is written with
beside the openers that it mentions, or in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from ..formats.reader import SPACE
from ..formats.wire_format import WireFormat
from ..grammar.engine import Vocabulary
from ..parsing.quoted import QUOTE, Code, says_words
from ..parsing.value_words import may_set_apart

_SPACE = SPACE.encode()
_QUOTED = re.compile(QUOTE.encode())
_NEAR = 8
"""How many bytes before a word show whether it is in quotes."""
_BLANK = 64
"""More white space than may stand behind an opener."""


Span: TypeAlias = tuple[int, int]
"""Where a control token, or what there is of it, begins and ends in a text, in bytes."""


class Words:
    """The control tokens of a format, as prose in a vocabulary may hold them.

    Args:
        ids: the ids of those that are one token.

    Attributes:
        has_opener: the opener is one token.
        quotable: the ids of those that stand inside calls or close them.
        sayable: the ids of those that the text of a value may name, alone or beside others.
        thinkable: the ids of those that reasoning may name.
    """

    def __init__(
        self, wire_format: WireFormat, vocabulary: Vocabulary, ids: Mapping[str, int]
    ) -> None:
        self._bytes_of = vocabulary.bytes_of
        self._opener = wire_format.opener.encode()
        self._controls = [text.encode() for text in wire_format.controls]
        self._longest = max(map(len, self._controls))
        self._single = {text.encode() for text in ids}
        self._opener_ends = tuple(self._opener[at:] for at in range(len(self._opener)))
        self._begun = tuple({c[:size] for c in self._controls for size in range(1, len(c))})
        # Without an opener they are a turn's own frame, as harmony's, and no prose has them.
        calls = {wire_format.closer, *wire_format.inner} if wire_format.opener else set()
        quotable = calls - {*wire_format.ends}
        self._quotable = {text.encode() for text in quotable}
        self.quotable = frozenset(token for text, token in ids.items() if text in quotable)
        named = wire_format.sayable | wire_format.framing if wire_format.sayable else ()
        self.sayable = frozenset(token for text, token in ids.items() if text in named)
        self.thinkable = frozenset(t for text, t in ids.items() if text in wire_format.thinkable)
        self._in_quotes = not wire_format.reader.values
        self._may_set_apart: dict[int, bool] = {}
        self.has_opener = wire_format.opener in ids
        self._may_follow: dict[int, bool] = {}

    def may_follow(self, token: int) -> bool:
        """Whether a control token may be over, begun or in quotes behind this token: a quick look,
        which leaves out nothing."""
        if token not in self._may_follow:
            said = self._bytes_of([token])
            bare = said.rstrip(_SPACE)
            self._may_follow[token] = (
                not bare
                or said.startswith(self._opener_ends)
                or any(bare in control for control in self._controls)
                or said.endswith(self._begun)
                or _QUOTED.search(b" " + said) is not None
            )
        return self._may_follow[token]

    def may_set_apart(self, token: int) -> bool:
        """Whether a word of a value may be set apart behind this token: a quick look, too."""
        if token not in self._may_set_apart:
            said = self._bytes_of([token])
            self._may_set_apart[token] = bool(self.sayable) and may_set_apart(said, self._in_quotes)
        return self._may_set_apart[token]

    def doubtful(self, text: bytes) -> bool:
        """Whether more of a text may show that a control token begun in it, or the next, is a
        word."""
        return text.endswith(self._begun) or self.in_quotes(text, mentioned=False)

    def opener(self, text: bytes) -> Span | None:
        """The opener that a text ends in, white space aside, if no call is before it."""
        end = len(text) - len(text[-_BLANK:]) + len(text[-_BLANK:].rstrip(_SPACE))
        return self._first(text, end - len(self._opener), end)

    def opened(self, text: bytes, last: int) -> Span | None:
        """The opener that ends in the last bytes of a text, if no call is before it."""
        start = text.find(self._opener, max(0, len(text) - last - len(self._opener) + 1))
        return self._first(text, start, start + len(self._opener))

    def _first(self, text: bytes, start: int, end: int) -> Span | None:
        found = bool(self._opener) and start >= 0 and text.startswith(self._opener, start)
        return (start, end) if found and text.find(self._opener, 0, start) < 0 else None

    def said(self, text: bytes) -> bool:
        """Whether there are words in a text behind its last control token."""
        if not text:
            return False
        places = [(text.rfind(control), len(control)) for control in self._controls]
        last = max((place + size for place, size in places if place >= 0), default=0)
        return bool(text[last:].strip(_SPACE))

    def completed(self, text: bytes, said: bytes, mentioned: bool) -> Span | None:
        """The control token that begins in prose and that more of it, `said`, completes, if it may
        be a word there.

        A model that means a token says the token. One that its vocabulary has not may be a word
        if it is the opener and what follows it is said, too; in quotes; and where an opener was
        one before.
        """
        before = max(0, len(text) - self._longest)
        near = text[before:]
        for control in self._controls:
            start = (near + said).find(control, max(0, len(near) - len(control) + 1))
            if 0 <= start < len(near):
                start += before
                beside = mentioned and control in self._quotable
                free = control in self._single | {self._opener} or self.in_quotes(
                    text[:start], beside
                )
                return (start, len(text)) if free else None
        return None

    def in_quotes(self, text: bytes, mentioned: bool) -> bool:
        """Whether what follows a text is in quotes, or prose that mentions an opener."""
        return mentioned or _QUOTED.search(text[-_NEAR:]) is not None

    def in_code(self, text: bytes) -> bool:
        """Whether what follows a text of words is in a code span or block of Markdown."""
        said = text.decode("utf-8", "replace")
        code = Code(said)
        return bool(code.closing) and (says_words(said) or not code.is_block)
