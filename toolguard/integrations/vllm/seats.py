"""The guarded requests of an engine, and what is done with them at every step."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from logging import Logger
from typing import TYPE_CHECKING, Any

import torch

from ...decoding.batch import fill
from ...decoding.reading import Reading, Record
from ...decoding.state import GuardState
from ...decoding.watch import Watch
from ...errors import ProfileError, RequestError, ToolguardError
from ...policy.drift import Drift
from ...policy.enforce import ban, hold, note, observe
from .request import GuardRequest, Resumption
from .stats import Stats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FROM_THE_START = Resumption()


@dataclass
class _Step:
    """What was read at one step, before its tokens were chosen."""

    reading: Reading

    @cached_property
    def records(self) -> list[Record]:
        return self.reading.records()


@dataclass(eq=False)
class Seat:
    """One guarded request.

    Attributes:
        name: what the log calls it.
        request: how it is to be guarded.
        resumption: where its turn was taken up.
        starting: its state, as soon as its guard is compiled.
        ids: the tokens written so far; may be a list that the engine goes on writing.
        taken: how many of them the state was told.
        state: where it stands; None before its guard is needed, and if that could not be made.
    """

    name: str
    request: GuardRequest
    resumption: Resumption
    starting: Future[GuardState] | None
    ids: list[int]
    taken: int = 0
    state: GuardState | None = None
    read: tuple[_Step, int] | None = None


class Seats:
    """The guarded requests of one engine, by its own number for each.

    Where a request stands is a function of the tokens written: prompts in chunks, preemption and
    moves between rows change nothing.

    Args:
        drift: takes in the steps of every turn.
        log_text: the log may hold what a model said.

    Attributes:
        stats: what was done so far.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        logger: Logger,
        drift: Drift | None = None,
        log_text: bool = False,
    ) -> None:
        self.stats = Stats()
        self._tokenizer = tokenizer
        self._logger = logger
        self._drift, self._log_text = drift, log_text
        self._seats: dict[int, Seat] = {}
        self._compiler = ThreadPoolExecutor(1, "toolguard-compile")

    def __len__(self) -> int:
        return len(self._seats)

    def __getitem__(self, number: int) -> Seat:
        return self._seats[number]

    def __contains__(self, number: int) -> bool:
        return number in self._seats

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._seats))

    def enter(
        self,
        number: int,
        name: str,
        request: GuardRequest,
        ids: list[int],
        *,
        stops: Collection[int],
        prompt: Sequence[int],
        resumption: Resumption = _FROM_THE_START,
    ) -> None:
        """Takes in a request. Its guard is compiled while the engine reads its prompt.

        Args:
            number: the engine's; whatever had it before has left.
            ids: the tokens written so far, or a list of them that goes on.
            stops: the ids at which the engine ends it.
            prompt: the last ids of the prompt.
            resumption: where the turn is taken up, if it was taken back; neither `ids` nor `prompt`
                includes what was kept of it.
        """
        starting = self._compiler.submit(self._start, request, stops, prompt, resumption.kept)
        self._seats[number] = Seat(name, request, resumption, starting, ids)

    def leave(self, number: int) -> None:
        """Lets a request go, if there is one of that number."""
        seat = self._seats.pop(number, None)
        if seat is None:
            return
        if seat.state is None:
            if seat.starting is not None:
                seat.starting.cancel()
            return
        self._follow(seat, seat.state)
        self.stats.end(seat.state)
        self._look_for_drift(seat.state)
        if seat.state.interventions or seat.state.lost:
            self._log(seat.name, seat.state)

    def figures(self) -> dict[str, Any]:
        """The statistics as plain values, with how many requests there are now."""
        return self.stats.to_json(live=len(self))

    def move(self, a: int, b: int, swap: bool) -> None:
        """A request gets another number; with `swap`, the one that had it gets the first's."""
        if not swap:
            self.leave(b)  # vLLM does not say that a request is over whose row another one takes
        moved, other = self._seats.pop(a, None), self._seats.pop(b, None)
        if moved is not None:
            self._seats[b] = moved
        if other is not None:
            self._seats[a] = other

    def hold(self, rows: Iterable[tuple[int, int, Sequence[int]]], logits: torch.Tensor) -> None:
        """Holds the guarded rows of a batch to their grammars, in place.

        Args:
            rows: of each guarded row: its place in `logits`, the number of its request, and the
                tokens drafted before it.
            logits: the model's own, of shape [rows, vocabulary].
        """
        started = time.perf_counter()
        groups = defaultdict[tuple[Watch, str], list[tuple[int, Seat, GuardState]]](list)
        for row, number, drafts in rows:
            seat = self._seats[number]
            state = self._state(seat)
            if state is None:
                continue
            if drafts:
                state = state.copy()
                for token in drafts:
                    state.watch(token)
            else:
                self._follow(seat, state)
            if not (state.done or state.lost):
                groups[Watch.of(state.guard), seat.request.policy].append((row, seat, state))
        for (_, policy), members in groups.items():
            index = [row for row, _, _ in members]
            states = [state for _, _, state in members]
            every = index == [*range(len(logits))]
            part = logits if every else logits[index]
            filling = time.perf_counter()
            bitmask = fill(states)
            self.stats.fill_seconds += time.perf_counter() - filling
            if policy == "observe":
                step = _Step(observe(states, part, bitmask))
            else:
                step = _Step(hold(states, part, bitmask=bitmask))
                for place, (_, seat, state) in enumerate(members):
                    if state is seat.state and not seat.ids and seat.resumption.banned:
                        ban(part[place], seat.resumption.banned)
                if not every:
                    logits[index] = part
            for place, (_, seat, state) in enumerate(members):
                if state is seat.state:
                    seat.read = step, place
        self.stats.steps += 1
        self.stats.step_seconds += time.perf_counter() - started

    def _start(
        self,
        request: GuardRequest,
        stops: Collection[int],
        prompt: Sequence[int],
        kept: Sequence[int],
    ) -> GuardState:
        started = time.perf_counter()
        guard = request.guard(self._tokenizer, stops, prompt)
        self.stats.compiled += 1
        self.stats.compile_seconds += time.perf_counter() - started
        # The engine ends what its budget does not hold, and says so: nothing is made up here.
        state = guard.start(sys.maxsize)
        if not all(state.retrace(token) for token in kept):
            raise RequestError("kept: a turn that begins so is not legal")
        return state

    def _state(self, seat: Seat) -> GuardState | None:
        """The state of a seat, once its guard is compiled; None if that failed."""
        if seat.starting is not None:
            try:
                seat.state = seat.starting.result()
                if self._drift and self._drift.profile.wire_format == seat.request.format.name:
                    seat.state.steps = []
            except ToolguardError as error:
                # What the API server takes compiles; only a request made by hand comes here.
                self.stats.unguarded += 1
                self._logger.error("toolguard: %s runs UNGUARDED: %s", seat.name, error)
            seat.starting = None
        return seat.state

    def _follow(self, seat: Seat, state: GuardState) -> None:
        """Tells a state what was written since."""
        if len(seat.ids) < seat.taken:  # the engine took some back
            if not state.lost:
                state.rollback(seat.taken - len(seat.ids))
            seat.taken, seat.read = len(seat.ids), None
        for token in seat.ids[seat.taken :]:
            if state.done or state.lost:
                break
            if seat.read is not None:
                self._note(seat.read, state, token)
                seat.read = None
            if seat.request.policy == "observe":
                state.watch(token)
            elif not state.accept(token):
                state.lost = True
        seat.taken = len(seat.ids)

    def _note(self, read: tuple[_Step, int], state: GuardState, token: int) -> None:
        step, place = read
        record = step.records[place]
        if state.steps is not None:
            state.steps.append(step.reading.step(state, record, token))
        note(state, record)
        if record.pressure or any(record.masses):
            self.stats.read(record.pressure, step.reading.masses(record))

    def _look_for_drift(self, state: GuardState) -> None:
        if self._drift is None or not state.steps:
            return
        try:
            alarm = self._drift.update(state.steps)
        except ProfileError as error:
            self._drift = None
            self._logger.error("toolguard: no longer looking for drift: %s", error)
            return
        self.stats.drift = self._drift.statistic
        if alarm is not None:
            self.stats.alarms += 1
            self._logger.warning("toolguard: %s", alarm)

    def _log(self, name: str, state: GuardState) -> None:
        """One line of JSON, without what the user or the model said unless that is wanted."""
        line = {
            "request": name,
            "format": state.guard.format.name,
            "tokens": len(state.ids),
            "left_grammar": state.lost,
            "pressure": round(state.pressure, 3),
            "interventions": [
                {"step": done.step, "region": done.region, "action": done.action,
                 "token_id": done.token_id, "mass": done.mass}
                for done in state.interventions
            ],
        }  # fmt: skip
        if self._log_text:
            line["text"] = state.guard.vocabulary.text_of(state.ids)
        self._logger.info("toolguard intervened: %s", json.dumps(line))
