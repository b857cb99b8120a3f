"""Where a parser would be some tokens on, while it stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from lark import Token, UnexpectedToken
from lark.parsers.lalr_analysis import Shift
from lark.parsers.lalr_parser_state import ParserState

_unexpected: Callable[..., UnexpectedToken] = UnexpectedToken  # lark has no types for it


class Ahead:
    """A parser's stack of states some tokens on, without the tree; good until the parser moves.

    It is the first `kept` states of the parser's own stack, and `more`: one token costs the same
    however deep the parser is.
    """

    __slots__ = ("_kept", "_more", "_state")

    def __init__(
        self, state: ParserState[Any], kept: int | None = None, more: Sequence[Any] = ()
    ) -> None:
        self._state = state
        self._kept = len(state.state_stack) if kept is None else kept
        self._more = more

    @property
    def position(self) -> Any:
        """The state on top; lark's lexer asks for it."""
        return self._more[-1] if self._more else self._state.state_stack[self._kept - 1]

    @property
    def expected(self) -> Collection[str]:
        """The terminals that may follow."""
        return self._state.parse_conf.states[self.position].keys()

    def after(self, token: Token) -> Ahead:
        """One token further on.

        Raises:
            UnexpectedToken: it may not follow.
        """
        table, stack = self._state.parse_conf.states, self._state.state_stack
        kept, more = self._kept, list(self._more)
        while True:
            top = more[-1] if more else stack[kept - 1]
            try:
                action, target = table[top][token.type]
            except KeyError:
                raise _unexpected(token, set(table[top]), state=self) from None
            if action is Shift:
                return Ahead(self._state, kept, [*more, target])
            size = len(target.expansion)
            kept -= max(0, size - len(more))
            del more[max(0, len(more) - size) :]
            top = more[-1] if more else stack[kept - 1]
            more.append(table[top][target.origin.name][1])
