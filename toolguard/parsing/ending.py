"""The end token of a turn, where its text still has it."""

from __future__ import annotations

from functools import cache

from ..formats.reader import LEADING_SPACE, SPACE, begun_length, marker
from ..formats.wire_format import WireFormat

_MOST = 256
"""How many end tokens a text may end in: batches are padded with them."""


def without_end(text: str, wire_format: WireFormat) -> str:
    """A text without the end tokens that it ends in, and without white space between and behind
    them; an end token before is a part of the turn."""
    return text[: _cut(text, len(text), wire_format)]


def held_from(text: str, wire_format: WireFormat) -> int:
    """Where that begins which may turn out to be the end of a turn, if no more text comes, or if
    some does: end tokens, the last of them perhaps begun only."""
    # What ends the text may begin an end token, too: minimax's `[e~[`.
    sizes = len(text), len(text) - begun_length(text, _ends(wire_format))
    return min(_cut(text, size, wire_format) for size in sizes)


def _cut(text: str, size: int, wire_format: WireFormat) -> int:
    for _ in range(_MOST):
        near = text[max(0, size - LEADING_SPACE) : size]
        bare = size - len(near) + len(near.rstrip(SPACE))
        end = next((end for end in _ends(wire_format) if text.endswith(end, 0, bare)), None)
        if end is None:
            break
        size = bare - len(end)
    return size


@cache
def _ends(wire_format: WireFormat) -> tuple[str, ...]:
    """The end tokens of a format, marked or spelled."""
    marks = tuple(marker(wire_format.controls.index(end)) for end in wire_format.ends)
    return (*wire_format.ends, *marks)
