"""Whether a turn goes wrong, as far as its tokens alone tell."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ...decoding.state import GuardState
from ...policy.recover import Recovery
from .request import Resumption


class Judge:
    """Follows a turn that the engine guards, and says when and how far to take it back.

    The API server sees no logits. What can be told without them: a call without its opener, one
    that fails its tool's schema, the same call twice, and a loop.

    Args:
        state: a fresh one.

    Attributes:
        state: where the turn stands.
        settled: how many of its tokens stay, whatever comes; the others belong to a call that is
            not known to be sound, or to what may be one without its opener.
        retries: how often it was taken back.
        last: how many tokens were, the last time.
    """

    def __init__(self, state: GuardState) -> None:
        self.state = state
        self.settled = 0
        self._outside = self._before = 0  # tokens, and calls, when no call was open
        self.retries = self.last = 0
        self._recovery = Recovery(state.guard)

    def take(self, token: int) -> Resumption | None:
        """Follows one more token.

        Returns:
            Where to go on, if the turn is taken back.
        """
        state, recovery = self.state, self._recovery
        if state.lost or not state.retrace(token):
            # Something else overruled the guard: there is nothing to go by any more.
            state.lost, self.settled = True, sys.maxsize
            return None
        written = len(state.ids)
        before = recovery.retries
        recovery.follow(state, settled=self.settled)
        if recovery.retries > before:
            return self._taken_back(written - len(state.ids), recovery.banned(state.ids))
        body = state.lead()
        if body:
            recovery.resume(state)
            return self._taken_back(len(body), ())
        self._settle()
        return None

    def _settle(self) -> None:
        state, recovery = self.state, self._recovery
        if state.done:
            self.settled = len(state.ids)
        elif state.may_be_bare:
            return
        elif state.region != "call":
            self._outside, self._before = len(state.ids), recovery.begun
            if not recovery.pending:
                self.settled = len(state.ids)
        elif recovery.begun > self._before and recovery.pending == 1:
            self.settled = max(self.settled, self._outside)  # the calls before this one are sound

    def _taken_back(self, tokens: int, banned: Iterable[int]) -> Resumption:
        self.retries += 1
        self.last = tokens
        return Resumption(tuple(self.state.ids), tuple(banned))
