"""Matchers: where one sequence stands in a grammar, whatever becomes of the mask engine.

All matchers of a grammar share what the engine (llguidance) has built of it. One sequence may spoil
it, for instance with a lexer that grew too large, and then all others fail with their next step. So
an error is looked for after each step, and each matcher that meets one starts anew with an engine
that was not spoiled. Only a sequence that spoils that one, too, is `broken`.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from .engine import Vocabulary, compile_grammar, executor

Words = npt.NDArray[np.int32]


class CompiledGrammar:
    """A grammar that the engine has compiled; threads share it.

    Args:
        vocabulary: the tokenizer as the engine sees it.
        grammar: in the engine's notation.

    Raises:
        ValueError: the engine refuses the grammar; the message is the engine's.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str) -> None:
        self.vocabulary = vocabulary
        self.grammar = grammar
        self._lock = Lock()
        self._engine = compile_grammar(vocabulary, grammar)
        self._compiled = 1

    def start(self) -> Matcher:
        """A matcher at the start of the grammar."""
        return Matcher(self, *self.engine())

    def engine(self, spoiled: int = 0) -> tuple[LLMatcher, int]:
        """An engine at the start, and its number, which is not that of the spoiled one."""
        with self._lock:
            if spoiled == self._compiled:
                self._engine = compile_grammar(self.vocabulary, self.grammar)
                self._compiled += 1
            return self._engine.deep_copy(), self._compiled


class Matcher:
    """Where one sequence stands. Make it with `CompiledGrammar.start`.

    Attributes:
        broken: what the engine says if it cannot follow the sequence; empty while it can. From then
            on everything is legal.
    """

    __slots__ = ("_compiled", "_engine", "_number", "_taken", "broken")

    def __init__(self, compiled: CompiledGrammar, engine: LLMatcher, number: int) -> None:
        self._compiled = compiled
        self._engine = engine
        self._number = number
        self._taken: list[int] = []
        self.broken = ""

    def copy(self) -> Matcher:
        """An independent copy."""
        other = Matcher(self._compiled, self._engine.deep_copy(), self._number)
        other._taken = self._taken.copy()
        other.broken = self.broken
        return other

    def accept(self, tokens: Sequence[int]) -> int:
        """Takes tokens up to the first illegal one; returns how many."""
        taken = 0
        if not self.broken:
            taken = self._engine.try_consume_tokens(list(tokens))
            if taken < len(tokens) and self._refuses_all():
                taken = self._engine.try_consume_tokens(list(tokens))
        taken = len(tokens) if self.broken else taken
        self._taken += tokens[:taken]
        return taken

    def accepts(self, token: int) -> bool:
        """Whether a token is legal."""
        legal = self._engine.validate_tokens([token]) == 1
        if not legal and self._refuses_all():
            legal = self._engine.validate_tokens([token]) == 1
        return legal or bool(self.broken)

    def is_stopped(self) -> bool:
        """Whether nothing but the end can follow."""
        return self._engine.is_stopped() and not self._fails() and self._engine.is_stopped()

    def rollback(self, tokens: int) -> bool:
        """Takes back the last tokens that were taken; False if the engine cannot."""
        kept = len(self._taken) - tokens
        done = bool(self.broken) or self._engine.rollback(tokens) or self._fails(kept)
        del self._taken[kept:]
        return done

    def forced(self) -> bytes:
        """The bytes that must follow."""
        return b"" if self.broken else self._engine.compute_ff_bytes()

    def mask(self) -> Words:
        """The legal next tokens, one bit each: int32 of shape [(vocabulary + 31) // 32]."""
        words = np.empty((1, (self._compiled.vocabulary.size + 31) // 32), np.int32)
        fill([(self, 0)], words)
        return words.reshape(-1)

    def _refuses_all(self) -> bool:
        """Whether a token is refused because the engine has met an error: one that cannot go on
        refuses everything, and says why only when it is asked for a mask."""
        if not self.broken and not self._engine.is_stopped():
            self._engine.compute_bitmask()
        return self._fails()

    def _fails(self, kept: int | None = None) -> bool:
        """Whether the engine has met an error. Then another one has taken the first `kept` tokens
        again, or the sequence is broken."""
        if self.broken or not self._engine.is_error():
            return False
        error = self._engine.get_error()
        taken = self._taken[:kept]
        # The first try may meet a sequence that has spoiled that engine, too.
        for _ in range(2):
            self._engine, self._number = self._compiled.engine(self._number)
            if self._engine.try_consume_tokens(taken) == len(taken):
                self._engine.compute_bitmask()
                if not self._engine.is_error():
                    return True
        self._compiled.engine(self._number)  # the others get one that was not spoiled
        self.broken = error.partition("\n")[0]
        return True


def fill(matchers: Sequence[tuple[Matcher, int]], words: Words) -> None:
    """Writes the masks of several sequences into their rows.

    Args:
        matchers: each with its row.
        words: int32 of shape [rows, words], contiguous.
    """
    _compute([each for each in matchers if not each[0].broken], words)
    _compute([each for each in matchers if each[0]._fails() and not each[0].broken], words)
    for matcher, row in matchers:
        if matcher.broken:
            words[row] = -1


def _compute(matchers: Sequence[tuple[Matcher, int]], words: Words) -> None:
    if matchers:
        rows = [(matcher._engine, row) for matcher, row in matchers]
        size = words.shape[1] * words.itemsize
        executor().unsafe_compute_mask_ptr(rows, words.ctypes.data, size, len(words))
