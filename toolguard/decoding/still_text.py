"""Free text in which no control token has begun: there the mask stays the same.

A mask depends on the terminals that may stand there, and on where the engine's lexer is in them.
Free text is one terminal. Once it is not blank, and not what it may not begin as, all that it must
not do is spell a control token. So where none has begun, the lexer is where it was whenever none
had; and none begins in a plain token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..grammar.engine import Vocabulary

Mask = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StillText:
    """What is known of the text since the last control token.

    Attributes:
        unsure: the place of the ids from which on a control token may have begun; None: none has.
        free: whether it is free text, and nothing else; None: that is yet to be seen.
        seen: how many ids there were when that was seen.
        mask: the mask of the text wherever no control token has begun.
    """

    unsure: int | None
    free: bool | None = None
    seen: int = 0
    mask: Mask | None = None


class PlainTokens(dict[int, bool]):
    """Whether a token is plain: whole characters, with none of which a control token begins.

    Make it with `plain_tokens`. Tokens are looked at as they come up.
    """

    def __init__(self, vocabulary: Vocabulary, controls: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self._begin = {control[0] for control in controls}

    def __missing__(self, token: int) -> bool:
        try:
            text = self._vocabulary.bytes_of([token]).decode()
        except UnicodeDecodeError:
            text = ""
        plain = bool(text) and token not in self._vocabulary.specials
        self[token] = found = plain and self._begin.isdisjoint(text)
        return found


@lru_cache(maxsize=64)
def plain_tokens(vocabulary: Vocabulary, controls: tuple[str, ...]) -> PlainTokens:
    """The plain tokens of a wire format; its guards share them."""
    return PlainTokens(vocabulary, controls)


@lru_cache(maxsize=256)
def shared_mask(octets: bytes) -> Mask:
    """A mask that states share."""
    return np.frombuffer(octets, np.int32)
