"""The decoding loop: one forward pass for all open rows, until every turn has ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedModel

from ...decoding.decision import opener_odds
from ...decoding.guard import Guard
from ...decoding.state import GuardState
from ...errors import RequestError
from ...parsing.turn import Turn
from ...policy.calibrate import Calibration
from ...policy.despike import Despiker
from ...policy.enforce import ban, hold, observe, record
from ...policy.optimistic import choose
from ...policy.recover import Recovery
from ...report.report import Policy
from .feed import Feed
from .sample import Sampler


@dataclass
class Row:
    """One sequence.

    Attributes:
        prompt: its prompt's ids.
        state: where it stands; holds the ids of the turn.
        drafts: tokens to be fed after them, because the grammar forces them or they were written
            before; kept as far as the model picks them itself.
        heading: what was written up to the first intervention, and the token wanted there.
        heard: what the reference has read of the turn.
        cleaned: how many corrupt turns were taken out of the history.
    """

    guard: Guard
    prompt: list[int]
    state: GuardState
    recovery: Recovery | None = None
    drafts: list[int] = field(default_factory=list)
    forced: int = 0
    passes: int = 0
    seconds: float = 0.0
    done: bool = False
    ids: list[int] = field(default_factory=list)
    heading: list[int] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    cleaned: int = 0

    def turn(self, policy: Policy) -> Turn:
        """The finished turn, with its report."""
        turn = self.guard.read(self.ids, self.state.mentions, self.state.cut)
        report = self.state.report(self.passes, self.seconds, self.forced)
        before = self.guard.read(self.heading).state if self.heading else None
        ended = self.ids[-1] in self.guard.vocabulary.end_ids
        report = replace(
            report,
            policy=policy,
            tokens=len(self.ids),
            state_before=before,
            state_after=turn.state,
            retries=self.recovery.retries if self.recovery else 0,
            retried_tokens=self.recovery.retried_tokens if self.recovery else 0,
            cleaned=self.cleaned,
            cut=report.cut or not ended,
        )
        return replace(turn, report=report)


class Decoder:
    """Decodes a batch of rows.

    Each pass feeds every open row what its cache lacks, right-aligned: the token sampled last, and
    after it the drafts. A draft that the model does not pick is taken back out of the cache.

    Args:
        reference, calibration: for the policy `recover`: see `toolguard.generate`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Row],
        policy: Policy,
        sampler: Sampler,
        budget: int,
        reference: PreTrainedModel | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.active = list(rows)
        self.guarded = policy != "observe"
        # A recurrent state cannot have holes: nothing can be taken back out of it.
        self.drafting = self.guarded and not model._is_stateful
        if policy == "recover" and (model._is_stateful or (reference and reference._is_stateful)):
            raise RequestError(
                "policy 'recover' takes tokens back, which a recurrent model's state cannot: use "
                "'enforce'"
            )
        self.sampler, self.budget = sampler, budget
        self.feed = Feed(model, len(rows))
        self.reference = None if reference is None else Feed(reference, len(rows))
        self.despiker = None if reference is None else Despiker(self._ask_reference)
        self.calibration = calibration
        self._asking: list[int] = []  # the rows of the batch that states stand for

    @torch.inference_mode()
    def decode(self) -> None:
        """Decodes all rows to their ends."""
        while self.active:
            started = time.perf_counter()
            queues = [
                [*row.prompt, *row.ids][self.feed.fed(index) :] + row.drafts
                for index, row in enumerate(self.active)
            ]
            logits = self.feed.feed(queues, 1 + max(len(row.drafts) for row in self.active))
            self._verify(logits)
            for index, row in enumerate(self.active):
                row.passes += 1
                row.drafts = []
                self._keep(index, row)
                if self.drafting and not row.done:
                    self._draft(index, row)
            elapsed = time.perf_counter() - started
            for row in self.active:
                row.seconds += elapsed
            open_rows = [index for index, row in enumerate(self.active) if not row.done]
            if len(open_rows) < len(self.active):
                for feed in filter(None, (self.feed, self.reference)):
                    feed.select(open_rows)
                self.active = [self.active[index] for index in open_rows]

    def _keep(self, index: int, row: Row, stable: int | None = None) -> None:
        """Takes back what the cache holds beyond a row's tokens, or beyond the stable ones of them.

        The last token is not kept: the next pass needs its logits.
        """
        same = len(row.ids) - 1 if stable is None else min(stable, len(row.ids) - 1)
        self.feed.keep(index, len(row.prompt) + same)

    def _draft(self, index: int, row: Row) -> None:
        """Finds what to feed along with the token sampled last."""
        body = self._led(row)
        if body:
            self._keep(index, row, len(row.ids) - len(row.guard.opener_ids))
            row.drafts = body
        else:
            row.drafts = row.state.forced()[: self.budget - len(row.ids) - 1]

    def _led(self, row: Row) -> list[int]:
        """Takes back the bare body of a call, for the opener to go before it; returns the body."""
        body = row.state.lead()
        if body:
            row.ids = [*row.state.ids]
            if row.recovery is not None:
                row.recovery.resume(row.state)
        return body

    def _verify(self, logits: torch.Tensor) -> None:
        """Samples after each fed token, as long as the drafts are what is sampled."""
        going = list(range(len(self.active)))
        place = {index: logits.shape[1] - 1 - len(self.active[index].drafts) for index in going}
        while going:
            rows = [self.active[index] for index in going]
            scores = torch.stack([logits[index, place[index]] for index in going])
            self._asking = going
            following = []
            for index, row, token in zip(going, rows, self._sample(rows, scores), strict=True):
                expected = row.drafts.pop(0) if row.drafts else None
                if row.state.interventions and not row.heading:
                    first = row.state.interventions[0]
                    row.heading = [*row.ids[: first.step], first.token_id]
                self._take(index, row, token)
                if token == expected and not row.done and row.ids[-1:] == [token]:
                    row.forced += 1
                    place[index] += 1
                    following.append(index)
            going = following

    def _sample(self, rows: Sequence[Row], scores: torch.Tensor) -> list[int]:
        """One token per row."""
        states = [row.state for row in rows]
        traced = any(state.steps is not None for state in states)
        odds = opener_odds(states, scores) if traced else {}
        if not self.guarded:
            reading = observe(states, scores) if traced else None
            tokens = self.sampler(scores)
            if reading is not None:
                reading.trace(states, tokens, odds)
            return tokens
        recovering = any(row.recovery is not None for row in rows)
        if self.sampler.by_mass and not traced and not recovering:
            return choose(states, scores, self.sampler)
        reading = hold(states, scores, self.despiker, self.calibration)
        for place, row in enumerate(rows):
            banned = row.recovery.banned(row.ids) if row.recovery else set()
            if banned:
                ban(scores[place], banned)
        tokens = self.sampler(scores)
        record(states, reading)
        if traced:
            reading.trace(states, tokens, odds)
        return tokens

    def _take(self, index: int, row: Row, token: int) -> None:
        if not self.guarded:
            row.state.watch(token)
            row.ids.append(token)
            row.done = token in row.guard.vocabulary.end_ids or len(row.ids) == self.budget
            return
        _accept(row.state, token)
        if row.recovery is None:
            row.ids.append(token)
        else:
            row.recovery.follow(row.state)
            before, row.ids = row.ids, [*row.state.ids]
            if row.ids[: len(before)] != before:
                self._keep(index, row, _shared(before, row.ids))
        row.done = row.state.done

    def _ask_reference(self, rows: Sequence[int]) -> torch.Tensor:
        """Lets the reference read on, in its own spelling of the turns."""
        assert self.reference is not None
        asked = [self._asking[row] for row in rows]
        queues = []
        for index, row in enumerate(self.active):
            spelled = row.guard.vocabulary.respelled(row.ids)
            whole = [*row.prompt, *spelled]
            same = _shared(row.heard, spelled)
            # The last token is read again where it is asked about: what follows is wanted.
            kept = min(len(row.prompt) + same, len(whole) - (index in asked))
            self.reference.keep(index, kept)
            queues.append(whole[self.reference.fed(index) :])
            row.heard = spelled
        return self.reference.feed(queues)[asked, -1]


def _shared(before: Sequence[int], after: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))


def _accept(state: GuardState, token: int) -> None:
    if not state.accept(token):
        raise AssertionError(f"token {token} was sampled from under a mask that forbids it")
