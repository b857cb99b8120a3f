"""Other damage that would have left the same text: then nobody knows what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..parsing.faults import BRACKETS
from ..parsing.turn import Turn
from ..tools.toolset import Toolset
from .search import Way

_VALUE_BEGINS = re.compile(r"[\[,:=({>]\s*")
_OTHER = BRACKETS | {closing: opening for opening, closing in BRACKETS.items()}
_FURTHEST = 200  # characters
_NEAR = 4  # characters


def has_rival(
    way: Way, source: str, turn: Turn, toolset: Toolset, read: Callable[[str], Turn]
) -> bool:
    """Whether the turn, as it was before one of the edits, may have lost something else; or was
    said twice, calls and all.

    Args:
        way: the turn with the edits.
        source: the turn without them.
        turn: what it says now.
        toolset: the tools that were offered.
        read: reads another text in its place.
    """
    half = len(source) // 2
    if source[:half].strip() == source[half:].strip():
        return True
    longer = 0
    for edit in way.edits:
        place = edit.span[0] + longer
        longer += len(edit.after) - len(edit.before)
        match edit.rule, edit.before:
            case "drop_stray", "]":
                rival = _may_be_a_list(way.text, place, read)
            case "split_pair", string:
                rival = _may_be_a_value(string, place, turn, toolset)
            case "python_constant", word:
                rest = way.text[place + len(edit.after) :]
                rival = _is_sound(read(f'{way.text[:place]}"{word}"{rest}'))
            case _, "":
                sign = edit.after.strip()
                rival = _may_have_moved(way.text, place, edit.after, read) or (
                    sign in _OTHER and _may_be_one_too_many(way.text, place, edit.after, turn, read)
                )
            case _:
                rival = False
        if rival:
            return True
    return False


def _may_be_a_list(text: str, place: int, read: Callable[[str], Turn]) -> bool:
    """Whether the bracket that was left out closed a list which lost its other one."""
    begins = _VALUE_BEGINS.finditer(text, max(0, place - _FURTHEST), place)
    others = (
        read(f"{text[: found.end()]}[{text[found.end() : place]}]{text[place:]}")
        for found in begins
        if found.end() < place
    )
    return any(map(_is_sound, others))


def _may_have_moved(text: str, place: int, put_in: str, read: Callable[[str], Turn]) -> bool:
    """Whether the sign that was put in may stand near by, where it is one too many."""
    end = place + len(put_in)
    near = (*range(max(0, place - _NEAR), place), *range(end, min(len(text), end + _NEAR)))
    return any(
        _is_sound(read(text[:at] + text[at + 1 :])) for at in near if text[at] == put_in.strip()
    )


def _may_be_one_too_many(
    text: str, place: int, put_in: str, turn: Turn, read: Callable[[str], Turn]
) -> bool:
    """Whether the other half of the bracket that was put in has no business there."""
    without = text[:place] + text[place + len(put_in) :]
    sign = _OTHER[put_in.strip()]
    near = range(max(0, place - _FURTHEST), min(len(without), place + _FURTHEST))
    others = (read(without[:at] + without[at + 1 :]) for at in near if without[at] == sign)
    return any(_is_sound(other) and _said(other) != _said(turn) for other in others)


def _said(turn: Turn) -> list[tuple[str, Mapping[str, Any]]]:
    return [(call.name, call.arguments) for call in turn.calls]


def _is_sound(turn: Turn) -> bool:
    return bool(turn.calls) and not turn.faults


def _may_be_a_value(string: str, place: int, turn: Turn, toolset: Toolset) -> bool:
    """Whether the string that was split into a key and its value may be a value without its key."""
    value = string[1:-1]
    for call in turn.calls:
        if call.span[0] <= place < call.span[1]:
            key, *_ = re.split(r"\W", value, maxsplit=1)
            if key not in call.arguments:
                return True  # some object's, which may have any keys
            rest = {name: given for name, given in call.arguments.items() if name != key}
            free = toolset[call.name].keys - {*call.arguments}
            return any(toolset.accepts(call.name, {**rest, name: value}) for name in free)
    return False
