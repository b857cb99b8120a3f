"""One row's mask as NumPy applies it: by the few ids that are legal, or by the few that are not.

Masks come back: text has the same one at nearly every step, and so have strings and each place of a
call's frame. So what is worked out of one is kept.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 16  # up to one id in so many is few


class RowMask:
    """Make it with `row_mask`.

    Args:
        octets: the legal tokens, one bit each; ids past their end are illegal.
        width: how many logits the row has.
    """

    def __init__(self, octets: NDArray[np.uint8], width: int) -> None:
        bits = np.unpackbits(octets, count=width, bitorder="little").view(bool)
        legal = int(np.count_nonzero(bits))
        self._octets, self._width = octets, min(8 * len(octets), width)
        self._legal = np.flatnonzero(bits) if legal <= width // _FEW else None
        self._illegal = np.flatnonzero(~bits) if width - legal <= width // _FEW else None

    def allows(self, token: int) -> bool:
        return token < self._width and bool(self._octets[token >> 3] >> (token & 7) & 1)

    def apply(self, scores: NDArray[Any]) -> None:
        """Sets the logits of illegal tokens to -inf, in place."""
        if self._legal is not None:
            kept = scores.take(self._legal)
            scores.fill(-np.inf)
            scores[self._legal] = kept
        elif self._illegal is not None:
            scores[self._illegal] = -np.inf
        else:
            scores[self._width :] = -np.inf
            inside = scores[: self._width]
            limits = _limits(scores.dtype).take(self._octets, axis=0).reshape(-1)
            np.minimum(inside, limits[: self._width], out=inside)

    def illegal_below(self, limit: float, scores: NDArray[Any]) -> bool:
        """Whether illegal tokens all have smaller logits; False where they are not few."""
        if self._illegal is None:
            return False
        found = scores.take(self._illegal)
        return not len(found) or found.item(found.argmax()) < limit

    def left(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Logits of the row, all legal ones among them."""
        return scores if self._legal is None else scores.take(self._legal)


def row_mask(words: NDArray[np.int32], width: int) -> RowMask:
    """The mask of a row of `width` logits, of which `words` are the bits."""
    return _row_mask(_Octets(words), width)


class _Octets:
    """A mask's octets as a key: their sum is a third of the work of Python's hash of them."""

    def __init__(self, words: NDArray[np.int32]) -> None:
        self.octets = words.tobytes()
        self._sum = int(np.add.reduce(words, dtype=np.int32))

    def __hash__(self) -> int:
        return self._sum

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Octets) and self.octets == other.octets


@lru_cache(maxsize=256)
def _row_mask(key: _Octets, width: int) -> RowMask:
    return RowMask(np.frombuffer(key.octets, np.uint8), width)


def allows(words: NDArray[np.int32], token: int) -> bool:
    """Whether a token is legal by a row's bits; ids past their end are illegal."""
    return token < 32 * len(words) and bool(words[token >> 5] >> (token & 31) & 1)


def allow(words: NDArray[np.int32], token: int) -> None:
    """Makes a token legal in a row's bits, in place."""
    words.view(np.uint32)[token >> 5] |= np.uint32(1 << (token & 31))


@cache
def _limits(dtype: np.dtype[Any]) -> NDArray[Any]:
    """How large the eight logits of each byte may be: inf or -inf, of shape [256, 8]."""
    octets = np.arange(256, dtype=np.uint8)[:, None]
    bits = np.unpackbits(octets, axis=1, bitorder="little")
    return np.where(bits, np.inf, -np.inf).astype(dtype)
