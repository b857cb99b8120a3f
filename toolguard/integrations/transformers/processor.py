"""The guard as a logits processor for `model.generate`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from ...decoding.guard import Guard
from ...decoding.state import GuardState
from ...errors import RequestError, StateError
from ...parsing.report import Report
from ...parsing.turn import Turn
from ...policy.enforce import enforce


class GuardLogitsProcessor(LogitsProcessor):
    """Holds `model.generate` to the guard: `generate(..., logits_processor=[processor])`.

    Works with batches, left padding, prompts of different lengths, greedy decoding, sampling, beam
    search and `num_return_sequences`. Make a new one for each call of `generate`. Put it first in
    the list, so that it sees the model's own scores.

    It cannot serve assisted generation, which takes tokens back, nor continuous batching, which
    shows a processor only the last token of each row; both are refused.

    Args:
        guards: one guard for all prompts of the batch, or one per prompt.
        max_new_tokens: what `generate` is given too: every turn ends closed within it.

    Raises:
        RequestError: not even the shortest legal turn fits into the budget.
    """

    supports_continuous_batching = False

    def __init__(self, guards: Guard | Sequence[Guard], *, max_new_tokens: int) -> None:
        self._guards = [guards] if isinstance(guards, Guard) else list(guards)
        self._starts = [guard.start(max_new_tokens) for guard in self._guards]
        self._prompt_length = 0
        self._length = 0
        self._states: dict[tuple[int, tuple[int, ...]], GuardState] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """The scores with illegal tokens at -inf.

        Args:
            input_ids: prompts and what was generated so far, of shape [rows, length].
            scores: the model's scores, of shape [rows, vocabulary].

        Raises:
            StateError: the rows are no continuation of those of the call before.
            RequestError: the number of rows is no multiple of the number of guards.
        """
        rows, length = input_ids.shape
        if rows % len(self._guards):
            raise RequestError(
                f"{len(self._guards)} guards for {rows} rows: give one guard, or one per prompt"
            )
        per_guard = rows // len(self._guards)
        if not self._length:
            self._prompt_length = length
            states = {(row, ()): self._starts[row // per_guard].copy() for row in range(rows)}
        elif length != self._length + 1:
            raise StateError(
                f"the rows went from {self._length} to {length} tokens: assisted generation and "
                "continuous batching cannot be guarded here, and each call of generate() needs a "
                "GuardLogitsProcessor of its own"
            )
        else:
            states = self._advance(input_ids[:, self._prompt_length :].tolist(), per_guard)
        self._length = length
        self._states = states
        scores = scores.clone()
        held = [row for row, state in enumerate(states.values()) if not state.done]
        if held:
            part = scores[held]
            enforce([state for state in states.values() if not state.done], part)
            scores[held] = part
        return scores

    def _advance(
        self, generated: list[list[int]], per_guard: int
    ) -> dict[tuple[int, tuple[int, ...]], GuardState]:
        """The states of the rows, each from the row that it continues.

        Beam search drops rows and continues others several times, within one prompt's rows.
        """
        by_history = {
            (row // per_guard, history): state for (row, history), state in self._states.items()
        }
        states = {}
        for row, tokens in enumerate(generated):
            parent = by_history.get((row // per_guard, tuple(tokens[:-1])))
            if parent is None:
                raise StateError(
                    f"row {row} continues none of the rows of the call before: each call of "
                    "generate() needs a GuardLogitsProcessor of its own"
                )
            state = parent.copy()
            # A beam whose score is -inf may hold an illegal token. It never wins, and stays as it
            # is; so does a finished row, which generate() pads.
            if not state.done and not state.accept(tokens[-1]):
                state.done = True
            states[(row, tuple(tokens))] = state
        return states

    def turns(self, sequences: torch.LongTensor) -> list[Turn]:
        """The finished turns of what `generate` returned, of shape [sequences, length]."""
        per_guard = max(1, sequences.shape[0] // len(self._guards))
        turns = []
        for row, ids in enumerate(sequences[:, self._prompt_length :].tolist()):
            turn = self._guards[row // per_guard].read(ids)
            turns.append(turn)
        return turns
