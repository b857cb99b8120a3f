"""The policy `recover`: what was written is taken back to a sound point, and tried again.

The measure of a call is its content: the model's own probability of its names and values among all
names and values, structure left out. Training damages structure; of content a model that knows what
to call is sure, and one that was driven into a call is not.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..decoding.guard import Guard
from ..decoding.state import GuardState
from ..parsing.events import CallEnd, CallStart, Event, FaultFound
from ..parsing.turn import INVALID
from ..report.report import Intervention

RETRIES = 3
"""How often a turn may be taken back."""
CONFIDENCE = 0.9
"""A call whose content has a smaller geometric mean of probability is doubted."""
ANSWER = 0.5
"""What is said instead of it has to be that likely at least."""
MARGIN = 0.4
"""And its surprise (the negative logarithm) at most that share of the call's."""
_LOOP, _PERIODS = 24, 4  # tokens that are the same so many times or more are a loop

Kind = Literal["doubted", "doubled", "invalid", "loop"]
_WHY: dict[Kind, str] = {
    "doubted": "the model is not sure of anything in this call",
    "doubled": "the same call a second time",
    "invalid": "the call does not satisfy its tool's schema",
    "loop": "it goes round in a loop",
}


@dataclass(frozen=True)
class _Candidate:
    """A way that was left, to come back to if no better one is found."""

    state: GuardState
    content: list[float]
    score: float


class Recovery:
    """Watches one turn while it is written, and says when and how far to take it back.

    Args:
        doubts: whether calls are doubted; `follow` has to be told how likely their content is.

    Attributes:
        retries: how often it was taken back.
        retried_tokens: how many tokens were taken back in all.
        begun: how many calls the turn has begun.
    """

    def __init__(self, guard: Guard, *, doubts: bool = True) -> None:
        self.guard = guard
        self.doubts = doubts
        self.retries = 0
        self.retried_tokens = 0
        self._content: list[float] = []  # how likely each token was as content; nan: structure
        self._dead: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self._openers: list[int] = []  # where each call begins
        self.begun = 0
        self._made: list[str] = []
        self._parser = guard.parser()
        self._mentions: frozenset[int] = frozenset()
        opener = guard.control_ids.get(guard.format.opener)
        self._opener = set() if opener is None else {opener}
        self._candidate: _Candidate | None = None
        self._branch_at = 0

    @property
    def pending(self) -> int:
        """How many calls were begun that are not found sound yet."""
        return self.begun - len(self._made)

    def banned(self, ids: Sequence[int]) -> set[int]:
        """The tokens that would lead into what was taken back before."""
        if not self._dead:
            return set()
        found = self._dead.get(tuple(ids), set())
        # The other way than a doubted call is none.
        return found | self._opener if self._candidate else found

    def follow(self, state: GuardState, content: float = math.nan, settled: int = 0) -> GuardState:
        """Looks at the turn after a token was accepted.

        Args:
            state: where the turn stands.
            content: the log-probability of that token as content (`Reading.content`).
            settled: how many of the turn's tokens cannot be taken back any more.

        Returns:
            The state to go on from: the same one, perhaps rolled back, or an earlier copy.
        """
        if state.mentions != self._mentions:
            self._reread(state, len(state.ids) - 1, len(self._content))
        self._content.append(content)
        if state.ids[-1] in self._opener and len(state.ids) - 1 not in state.quoted:
            self._openers.append(len(state.ids) - 1)
        tripped = self._trip(state, settled)
        if tripped is not None and self.retries < RETRIES:
            self._take_back(state, *tripped)
        elif state.done:
            return self._better(state)
        return state

    def _trip(self, state: GuardState, settled: int) -> tuple[Kind, int, int] | None:
        """What is wrong, where to go on from, and the token that must not be chosen there."""
        events = self._parser.feed(state.ids[-1:])
        if state.done:
            events += self._parser.finish()
        self.begun += _begun(events)
        for event in events:
            if isinstance(event, CallEnd) and event.index < len(self._openers):
                # The end of a call is certain only when the token after it is there.
                start, *later = [*self._openers[event.index :], len(state.ids)]
                made = _canonical(event)
                if made in self._made:
                    return "doubled", start, state.ids[start]
                self._made.append(made)
                doubted = self._score(start, later[0]) < math.log(CONFIDENCE)
                if doubted and self._may_doubt(event.index):
                    return "doubted", start, state.ids[start]
            elif isinstance(event, FaultFound) and event.fault.kind in INVALID:
                place = _last_value(state)
                return ("invalid", place, state.ids[place]) if place >= settled else None
        period = _period(state.ids)
        if period and not state.done and state.remaining:
            # Of a loop that is settled, the next round can still be left.
            place = max(len(state.ids) - _LOOP + period, settled)
            return "loop", place, state.ids[place - period]
        return None

    def _may_doubt(self, index: int) -> bool:
        """Whether something else could be said than this call: it is the first, and none is asked
        for."""
        free = self.doubts and self.guard.tool_choice == "auto"
        return free and index == 0 and self._candidate is None

    def _score(self, start: int, end: int | None = None) -> float:
        """The mean log-probability of the content from a token on; -inf where there is none."""
        said = [value for value in self._content[start:end] if not math.isnan(value)]
        return sum(said) / len(said) if said else -math.inf

    def _take_back(self, state: GuardState, kind: Kind, back: int, dead: int) -> None:
        if kind == "doubted":
            self._candidate = _Candidate(state.copy(), [*self._content], self._score(back))
            self._branch_at = back
        self._dead[tuple(state.ids[:back])].add(dead)
        taken = state.ids[back:]
        spelled = self.guard.vocabulary.text_of(taken)
        region = state.region
        state.rollback(len(taken))
        self.retries += 1
        self.retried_tokens += len(taken)
        self.resume(state, back)
        state.interventions.append(
            Intervention(back, region, spelled, dead, None, "rollback", _WHY[kind])
        )

    def _better(self, state: GuardState) -> GuardState:
        """The turn, or the way that was left, whichever the model itself finds likelier."""
        left, self._candidate = self._candidate, None
        score = self._score(self._branch_at)
        if left is None or score >= max(MARGIN * left.score, math.log(ANSWER)):
            return state
        spelled = self.guard.vocabulary.text_of(state.ids[self._branch_at :])
        left.state.interventions = [
            *state.interventions,
            Intervention(
                self._branch_at,
                "text",
                spelled,
                state.ids[self._branch_at],
                None,
                "rollback",
                "the call that was left is likelier than this",
            ),
        ]
        self.retries, self.retried_tokens = RETRIES, self.retried_tokens + len(state.ids)
        self._content = left.content
        self.resume(left.state, len(left.content))
        return left.state

    def resume(self, state: GuardState, kept: int) -> None:
        """Takes up a turn that was changed behind its first `kept` tokens."""
        self._reread(state, len(state.ids), kept)

    def _reread(self, state: GuardState, end: int, kept: int) -> None:
        ids, words = state.ids[:end], state.mentions | state.quoted
        self._content = [*self._content[:kept], *[math.nan] * (len(ids) - kept)]
        self._openers = [
            place for place, token in enumerate(ids) if token in self._opener and place not in words
        ]
        self._mentions = state.mentions
        self._parser = self.guard.parser(state.mentions)
        events = self._parser.feed(ids)
        self.begun = _begun(events)
        self._made = [_canonical(event) for event in events if isinstance(event, CallEnd)]


def _begun(events: Iterable[Event]) -> int:
    return sum(isinstance(event, CallStart) for event in events)


def _canonical(event: CallEnd) -> str:
    return json.dumps([event.call.name, event.call.arguments], sort_keys=True)


def _period(ids: Sequence[int]) -> int:
    """The period of the last tokens, if they go round often enough; else 0."""
    tail = list(ids[-_LOOP:])
    if len(tail) < _LOOP:
        return 0
    periods = range(1, _LOOP // _PERIODS + 1)
    return next((period for period in periods if tail[period:] == tail[:-period]), 0)


def _last_value(state: GuardState) -> int:
    """Where the last value of a call begins."""
    state = state.copy()
    while state.ids and state.position != "value":
        state.rollback(1)
    while state.ids and state.position == "value":
        state.rollback(1)
    return len(state.ids)
