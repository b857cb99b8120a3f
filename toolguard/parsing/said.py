"""Whether a call is said in full: what is still to be written of it is structure."""

from __future__ import annotations

from collections import deque
from typing import Any

from lark.parsers.lalr_analysis import Shift
from lark.parsers.lalr_parser_state import ParserState

from ..formats.reader import CALLS

_CONTENT = ("name_", "argument", "arguments_")
_MOST = 2_000
"""How many ways on are looked at: the shortest end of what has begun is among the first."""


def may_say_more(state: ParserState[Any]) -> bool:
    """Whether a name or an argument may come, or be ended by what comes, before the call that is
    being written is over."""
    table = state.parse_conf.states
    begun = tuple(state.state_stack)
    ways, seen = deque([begun]), {begun}
    while ways:
        way = ways.popleft()
        for terminal in filter(str.isupper, table[way[-1]]):
            stack = [*way]
            while terminal in table[stack[-1]]:
                action, target = table[stack[-1]][terminal]
                if action is Shift:
                    following = (*stack, target)
                    if following not in seen:
                        seen.add(following)
                        ways.append(following)
                    break
                rule = target.origin.name
                if rule in CALLS:
                    break
                if rule in _CONTENT and way is not begun:
                    return True
                if target.expansion:
                    del stack[-len(target.expansion) :]
                stack.append(table[stack[-1]][rule][1])
        if len(seen) > _MOST:
            return True
    return False
