"""The policy `recover`: what was written is taken back to a sound point, and tried again.

Taken back is only what is certainly wrong: a call that fails its schema, a loop, of tokens or of
calls, or brackets that end a call from inside one of its strings. A sound call stays, a second time
too: it may have been asked for twice. That a reply would be likelier says nothing against it: what
is short, or goes round, is always likely. Whether to call is decided where the turn decides it, by
a reference or a calibration (`despike.py`, `calibrate.py`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from ..decoding.guard import Guard
from ..decoding.state import GuardState
from ..parsing.events import CallEnd, CallStart, Event, FaultFound
from ..parsing.faults import BRACKETS
from ..parsing.turn import INVALID
from ..report.report import Intervention

RETRIES, RETRIED = 3, 1.5
"""How often a turn may be taken back, and how many tokens in all, as a share of its own."""
_LOOP, _PERIODS = 24, 4
"""Tokens that are the same so many times or more are a loop; and so are calls."""

_OPENING = {closing: opening for opening, closing in BRACKETS.items()}

Kind = Literal["invalid", "loop", "left"]
_WHY: dict[Kind, str] = {
    "left": "the model goes on behind a string that it did not close",
    "invalid": "the call does not satisfy its tool's schema",
    "loop": "it goes round in a loop",
}


class Recovery:
    """Watches one turn while it is written, and says when and how far to take it back.

    Attributes:
        retries: how often it was taken back.
        retried_tokens: how many tokens were taken back in all.
        begun: how many calls the turn has begun.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.retries = 0
        self.retried_tokens = 0
        self._dead: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self._openers: list[int] = []  # where each call begins
        self.begun = 0
        self._made: list[str] = []
        self._parser = guard.parser()
        self._mentions: frozenset[int] = frozenset()
        opener = guard.control_ids.get(guard.format.opener)
        self._opener = set() if opener is None else {opener}

    @property
    def pending(self) -> int:
        """How many calls were begun that are not found sound yet."""
        return self.begun - len(self._made)

    def banned(self, ids: Sequence[int]) -> set[int]:
        """The tokens that would lead into what was taken back before."""
        return self._dead.get(tuple(ids), set()) if self._dead else set()

    def follow(self, state: GuardState, settled: int = 0) -> None:
        """Looks at the turn after a token was accepted, and perhaps rolls it back.

        Args:
            state: where the turn stands.
            settled: how many of the turn's tokens cannot be taken back any more.
        """
        if state.mentions != self._mentions:
            self._reread(state, len(state.ids) - 1)
        if state.ids[-1] in self._opener and len(state.ids) - 1 not in state.quoted:
            self._openers.append(len(state.ids) - 1)
        tripped = self._trip(state, settled)
        if tripped is not None and self.retries < RETRIES:
            kind, back, dead = tripped
            if self.retried_tokens + len(state.ids) - back <= RETRIED * len(state.ids):
                self._take_back(state, kind, back, dead)

    def _trip(self, state: GuardState, settled: int) -> tuple[Kind, int, int] | None:
        """What is wrong, where to go on from, and the token that must not be chosen there."""
        place = len(state.ids) - 2
        if place >= settled and _left_string(state):
            return "left", place, state.ids[place]
        events = self._parser.feed(state.ids[-1:])
        if state.done:
            events += self._parser.finish()
        self.begun += _begun(events)
        for event in events:
            if isinstance(event, CallEnd) and event.index < len(self._openers):
                # The end of a call is certain only when the token after it is there.
                self._made.append(_canonical(event))
                if len({*self._made[-_PERIODS:]}) == 1 and len(self._made) >= _PERIODS:
                    again = self._openers[event.index - _PERIODS + 2 : event.index + 1]
                    back = next((place for place in again if place >= settled), None)
                    return None if back is None else ("loop", back, state.ids[back])
            elif isinstance(event, FaultFound) and event.fault.kind in INVALID:
                place = _last_value(state)
                return ("invalid", place, state.ids[place]) if place >= settled else None
        period = _period(state.ids)
        if period and not state.done and state.remaining:
            # Of a loop that is settled, the next round can still be left.
            place = max(len(state.ids) - _LOOP + period, settled)
            return "loop", place, state.ids[place - period]
        return None

    def _take_back(self, state: GuardState, kind: Kind, back: int, dead: int) -> None:
        self._dead[tuple(state.ids[:back])].add(dead)
        taken = state.ids[back:]
        spelled = self.guard.vocabulary.text_of(taken)
        region = state.region
        state.rollback(len(taken))
        self.retries += 1
        self.retried_tokens += len(taken)
        self.resume(state)
        state.interventions.append(
            Intervention(back, region, spelled, dead, None, "rollback", _WHY[kind])
        )

    def resume(self, state: GuardState) -> None:
        """Takes up a turn that was changed."""
        self._reread(state, len(state.ids))

    def _reread(self, state: GuardState, end: int) -> None:
        ids, words = state.ids[:end], state.mentions | state.quoted
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


def _left_string(state: GuardState) -> bool:
    """Whether the model had closed brackets inside a string that it had not opened there, and then
    wanted, more than anything else, what no string holds."""
    last = state.interventions[-1] if state.interventions else None
    place = len(state.ids) - 1
    if last is None or last.step != place or last.action != "mask" or (last.mass or 0) <= 0.5:
        return False
    spell = state.guard.vocabulary.text_of
    signs = spell(state.ids[place - 1 : place]).strip()
    if not signs or set(signs) - _OPENING.keys():
        return False
    before = state.copy()
    before.rollback(1)
    if before.position != "value":
        return False
    text = spell(before.ids[_last_value(before) :])
    return any(text.count(sign) > text.count(_OPENING[sign]) for sign in signs)


def _last_value(state: GuardState) -> int:
    """Where the last value of a call begins."""
    state = state.copy()
    while state.ids and state.position != "value":
        state.rollback(1)
    while state.ids and state.position == "value":
        state.rollback(1)
    return len(state.ids)
