"""Strings under a pattern and a length: the shortest end of one that has begun.

The search runs in the automaton of the regular expression (interegular), one character at a time:
states that look alike to a mask, such as how many digits of `\\d{4}` are there, are told apart.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import lru_cache
from math import inf
from string import ascii_letters, digits

from interegular import FSM, InvalidSyntax, Unsupported, parse_pattern
from interegular.fsm import State, TransitionKey

from ..formats.nodes import Strings

LARGEST = 400
"""How often a pattern may repeat something, added up: the automaton has a state for each time."""
MOST_STEPS = 200_000
"""How many states a search may visit."""

_REPEATED = re.compile(r"\{(\d+)?,?(\d+)?\}")
_PLAIN = ascii_letters + digits + " _-./:@,"
CHARACTER_ENDS = (b"\x80", b"\x80\x80", b"\xa0\x80", b"\x80\x80\x80", b"\x90\x80\x80")
"""What may complete a character whose first bytes are there."""
_TAILS = (b"", b"n", b"\\", b'"', b"1", b"61", b"061", b"0061", b"u0061", *CHARACTER_ENDS)
"""What may complete an escape or a character that has begun."""


def shortest_end(strings: Strings, begun: str = "") -> str | None:
    """The shortest text that makes `begun` one of these strings; None if none does, or if the
    pattern is too large to be searched, or says what the library does not know."""
    if strings.least is not None and not begun:
        return strings.least
    need = max(0, strings.low - len(begun))
    room = inf if strings.high is None else strings.high - len(begun)
    if room < need:
        return None
    if strings.pattern is None:
        return "a" * need
    walker = _walker(strings.pattern)
    return None if walker is None else walker.end(begun, need, room)


def times(pattern: str) -> int:
    """How often a pattern repeats something, added up."""
    return sum(int(bound) for pair in _REPEATED.findall(pattern) for bound in pair if bound)


def shortest_json_end(strings: Strings, begun: bytes) -> bytes | None:
    """The same for a JSON string of which `begun` is there, quotes included."""
    if not begun:
        found = shortest_end(strings)
        return None if found is None else json.dumps(found, ensure_ascii=False).encode()
    if not begun.startswith(b'"'):
        return None
    for tail in _TAILS:
        with suppress(ValueError):
            if shortest_end(strings, json.loads(begun + tail)) == "":
                return tail
        with suppress(ValueError):
            found = shortest_end(strings, json.loads(begun + tail + b'"'))
            if found is not None:
                return tail + json.dumps(found, ensure_ascii=False)[1:].encode()
    return None


class _Walker:
    """An automaton, walked by characters that stand for all that it does not tell apart."""

    def __init__(self, automaton: FSM) -> None:
        self._automaton = automaton
        kinds: dict[TransitionKey, str] = {}
        for char in [*_PLAIN, *automaton.alphabet, "\N{LATIN SMALL LETTER A WITH MACRON}"]:
            if isinstance(char, str):
                kinds.setdefault(automaton.alphabet[char], char)
        self._kinds = kinds

    def end(self, begun: str, need: int, room: float) -> str | None:
        """The shortest text of `need` to `room` characters that leads from `begun` to the end."""
        reached: State | None = self._automaton.initial
        for char in begun:
            steps = {} if reached is None else self._automaton.map.get(reached, {})
            reached = steps.get(self._automaton.alphabet[char])
        level = {} if reached is None else {reached: ""}
        # Beyond `need` characters a shortest text visits no state twice.
        for size in range(need + len(self._automaton.states) + 1):
            if size > room or not level or size * len(level) > MOST_STEPS:
                return None
            for state, text in level.items() if size >= need else ():
                if state in self._automaton.finals:
                    return text
            following: dict[State, str] = {}
            for state, text in level.items():
                steps = self._automaton.map.get(state, {})
                for kind, char in self._kinds.items():
                    if kind in steps:
                        following.setdefault(steps[kind], text + char)
            level = following
        return None


@lru_cache(maxsize=256)
def _walker(pattern: str) -> _Walker | None:
    if times(pattern) > LARGEST:
        return None
    try:
        return _Walker(parse_pattern(pattern).to_fsm())
    except (Unsupported, InvalidSyntax):
        return None
