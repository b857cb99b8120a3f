"""The guard as a logits processor for `model.generate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import LogitsProcessor

from ...decoding.guard import Guard
from ...decoding.state import GuardState
from ...errors import RequestError, StateError
from ...parsing.turn import Turn
from ...policy.enforce import enforce


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the last call: its prompt's number, what it had generated, and its state."""

    prompt: int
    history: tuple[int, ...]
    state: GuardState


class GuardLogitsProcessor(LogitsProcessor):
    """Holds `model.generate` to the guard: `generate(..., logits_processor=[processor])`.

    Works with batches, left padding, prompts of different lengths, greedy decoding, sampling, beam
    search and `num_return_sequences`. Make a new one for each call of `generate`.

    It cannot serve assisted generation, which takes tokens back, nor continuous batching, which
    shows a processor only the last token of each row; both are refused.

    Args:
        guards: one guard for all prompts of the batch, or one per prompt. Where its reasoning is
            `auto`, what the (first) prompt has opened is taken from that.
        max_new_tokens: what `generate` is given too: every turn ends closed within it.

    Raises:
        RequestError: not even the shortest legal turn fits into the budget.
    """

    def __init__(self, guards: Guard | Sequence[Guard], *, max_new_tokens: int) -> None:
        self._guards = [guards] if isinstance(guards, Guard) else list(guards)
        self._max_new_tokens = max_new_tokens
        self._starts = [guard.start(max_new_tokens) for guard in self._guards]
        self._prompt_length = 0
        self._rows: list[_Row] = []
        self._cuts: set[tuple[int, tuple[int, ...]]] = set()  # prompts, and turns cut there
        self._started = self._last = 0.0

    # The signature is transformers'; its LongTensor and FloatTensor are Tensors by another name.
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
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
        if not self._rows:
            self._prompt_length = length
            self._follow([input_ids[at].tolist() for at in range(0, rows, per_guard)])
            self._started = time.perf_counter()
            self._rows = [
                _Row(row // per_guard, (), self._starts[row // per_guard].copy())
                for row in range(rows)
            ]
        else:
            expected = self._prompt_length + len(self._rows[0].history) + 1
            if length != expected:
                raise StateError(
                    f"the rows have {length} tokens instead of {expected}: assisted generation and "
                    "continuous batching cannot be guarded here, and each call of generate() needs "
                    "a GuardLogitsProcessor of its own"
                )
            self._rows = self._advance(input_ids[:, self._prompt_length :].tolist(), per_guard)
        held = [index for index, row in enumerate(self._rows) if not row.state.done]
        if held:
            part = scores[held]  # a copy: indexing with a list makes one
            enforce([self._rows[index].state for index in held], part)
            for row in (self._rows[index] for index in held):
                if row.state.cut == len(row.history):
                    self._cuts.add((row.prompt, row.history))
            scores = scores.clone()
            scores[held] = part
        self._last = time.perf_counter()
        return scores

    def _follow(self, prompts: Sequence[Sequence[int]]) -> None:
        """Takes from the prompts what they have opened."""
        for at, prompt in enumerate(prompts):
            guard = self._guards[at].after(prompt)
            if guard is not self._guards[at]:
                self._guards[at], self._starts[at] = guard, guard.start(self._max_new_tokens)

    @property
    def supports_continuous_batching(self) -> bool:  # type: ignore[override]
        """Raises, instead of saying no: transformers would drop the processor with a warning.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            "continuous batching shows a logits processor only the last token of each row, so it "
            "cannot be guarded: use generate() without it, or toolguard.generate()"
        )

    def _advance(self, generated: list[list[int]], per_guard: int) -> list[_Row]:
        """The rows now, each continuing one of the call before.

        Beam search drops rows and continues others several times, within one prompt's rows.
        """
        parents = {(row.prompt, row.history): row.state for row in self._rows}
        rows = []
        for index, tokens in enumerate(generated):
            prompt = index // per_guard
            parent = parents.get((prompt, tuple(tokens[:-1])))
            if parent is None:
                raise StateError(
                    f"row {index} continues none of the rows of the call before: each call of "
                    "generate() needs a GuardLogitsProcessor of its own"
                )
            state = parent.copy()
            # A beam whose score is -inf may hold an illegal token. It never wins, and is left
            # alone from there on, as a finished row is, which generate() pads.
            if not state.done and not state.accept(tokens[-1]):
                state.done = True
            rows.append(_Row(prompt, tuple(tokens), state))
        return rows

    def turns(self, sequences: torch.Tensor | None = None) -> list[Turn]:
        """The finished turns of what `generate` returned, of shape [sequences, length].

        A turn's report is that of the row it came from, timed over the whole call of `generate`;
        None for a beam that was finished and set aside before the last call.

        Args:
            sequences: None where that is not at hand: the turns are those of the last call's rows.
                A processor is not shown the token that was sampled last; where that may be the end
                of a turn, it is taken to be.
        """
        generated = (
            [self._seen(row) for row in self._rows]
            if sequences is None
            else sequences[:, self._prompt_length :].tolist()
        )
        per_guard = max(1, len(generated) // len(self._guards))
        turns = []
        for index, ids in enumerate(generated):
            prompt = index // per_guard
            state = self._state_of(prompt, ids)
            cuts = [begun for of, begun in self._cuts if of == prompt]
            cut = next((len(begun) for begun in cuts if (*ids[: len(begun)],) == begun), None)
            mentions = state.mentions if state else frozenset[int]()
            turn = self._guards[prompt].read(ids, mentions, cut)
            if state is not None:
                report = state.report(len(turn.ids), self._last - self._started)
                turn = replace(turn, report=replace(report, tokens=len(turn.ids)))
            turns.append(turn)
        return turns

    def _seen(self, row: _Row) -> list[int]:
        """A row's tokens; the last one was never shown."""
        ends = self._guards[row.prompt].vocabulary.end_ids
        closed = not row.state.done and any(row.state.copy().accept(end) for end in ends)
        return [*row.history, *(ends[:1] if closed else ())]

    def _state_of(self, prompt: int, ids: Sequence[int]) -> GuardState | None:
        """The state of the row that went furthest along these ids."""
        candidates = [
            row.state
            for row in self._rows
            if row.prompt == prompt and row.state.ids == list(ids[: len(row.state.ids)])
        ]
        return max(candidates, key=lambda state: len(state.ids), default=None)
