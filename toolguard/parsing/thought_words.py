"""Control tokens in reasoning that goes on to its end: words, as in a thought about tool calls.

Token ids show what a model meant (see `GuardState.mention`); text does not. There the control
tokens of calls are words of reasoning that is closed behind them: no call is made in reasoning.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from ..formats.reader import SPACE, begun_length, fixed_text, words
from ..formats.wire_format import WireFormat
from .opening import Opened


class _Tags(NamedTuple):
    """What opens and closes the reasoning of a format, and the control tokens that it may name."""

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    names: frozenset[str]


class ThoughtWords:
    """Makes words of the control tokens in the reasoning of a turn that comes in pieces of text.

    Attributes:
        found: there were some.
    """

    def __init__(self, wire_format: WireFormat, opened: Opened) -> None:
        self._tags = _tags(wire_format)
        self._controls = wire_format.controls
        self._control = wire_format.any_control
        self._inside = opened is True
        self._over = not self._tags.openings or opened == "reply"
        self._held = ""
        self._sought = 0  # up to there nothing in what is held ends the reasoning
        self.found = False

    def feed(self, text: str, final: bool = False) -> str:
        """What is decided of a text by now; the rest is held.

        Args:
            final: no more comes.
        """
        if self._over and not self._held:
            return text
        text = self._held + text
        start = 0 if self._inside else self._begin(text, final)
        size, said = (len(text), text) if self._over else self._decided(text, start, final)
        self._held = text[size:]
        return said

    def _begin(self, text: str, final: bool) -> int:
        """Where the reasoning that a text opens begins."""
        bare = text.lstrip(SPACE)
        found = max((o for o in self._tags.openings if bare.startswith(o)), key=len, default="")
        self._inside = bool(found)
        begun = any(opening.startswith(bare) for opening in self._tags.openings)
        self._over = not found and (final or not begun)
        return len(text) - len(bare) + len(found) if found else len(text)

    def _decided(self, text: str, start: int, final: bool) -> tuple[int, str]:
        """How much of the text is decided, and what stands for it."""
        if not self._inside:
            return 0, ""
        first = start if self._sought else None
        whole = len(text) - begun_length(text, self._controls)
        for control in self._control.finditer(text, max(start, self._sought)):
            here = control.start()
            if text.startswith(self._tags.closings, here):
                self._over = True
                first = here if first is None else first
                self.found = first < here
                spoken = self._control.sub(lambda m: words(m[0]), text[first:here])
                return len(text), text[:first] + spoken + text[here:]
            if not final and any(tag.startswith(text[here:]) for tag in self._tags.closings):
                whole = here
                break
            if control[0] not in self._tags.names:
                self._over = True
                return len(text), text
            first = here if first is None else first
        if final:
            self._over = True
            return len(text), text
        size = whole if first is None else first
        self._sought = 0 if first is None else max(1, whole - first)
        return size, text[:size]


@cache
def _tags(wire_format: WireFormat) -> _Tags:
    frames = wire_format.reasonings
    return _Tags(
        tuple(text for frame in frames if (text := fixed_text(frame.opening))),
        tuple(text for frame in frames if (text := fixed_text(frame.closing))),
        wire_format.thinkable,
    )
