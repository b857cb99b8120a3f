"""Turns with one structural token deleted, doubled, swapped, or replaced by one like it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import toolguard
from toolguard import Toolset, WireFormat

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"type": "string"},
        "days": {"type": "integer"},
        "options": {
            "type": "object",
            "properties": {
                "metric": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
    "required": ["city"],
}
TIME = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
TOOLS = Toolset.of(
    [
        {"name": "get_weather", "parameters": WEATHER},
        {"name": "get_time", "parameters": TIME},
        {"name": "ping", "parameters": {"type": "object", "properties": {}}},
    ]
)
Calls = list[dict[str, Any]]


class Case(NamedTuple):
    """A turn before it is rendered."""

    calls: Calls
    text: str = ""
    reasoning: str = ""


class Damaged(NamedTuple):
    """A rendered case with one token out of place.

    Attributes:
        case: what it was.
        whole: how that is rendered.
        text: the same, damaged.
        how: what was done to it.
    """

    case: Case
    whole: str
    text: str
    how: str


def _weather(**arguments: Any) -> dict[str, Any]:
    return {"name": "get_weather", "arguments": arguments}


_ZONE = {"name": "get_time", "arguments": {"zone": "UTC"}}
_PING: dict[str, Any] = {"name": "ping", "arguments": {}}
CASES = (
    Case([_weather(city="Berlin", unit="celsius", days=3)]),
    Case([_weather(city="Berlin", unit="celsius"), _ZONE]),
    Case([_weather(city="Berlin"), _weather(city="Rome")]),
    Case([_weather(city="Oslo", options={"metric": True, "tags": ["sun", "two days"]})]),
    Case([_PING, _ZONE]),
    Case([_weather(city="Berlin", unit="celsius")], "I look it up. "),
    Case([_weather(city="Berlin", unit="celsius")], "", "They want the weather."),
    Case([_weather(city="Rome"), _ZONE], "Let me see. ", "Two calls."),
)


def some_damaged(wire_format: WireFormat, most: int) -> list[Damaged]:
    """So many at random, the same each time, of all that the format can say."""
    found: dict[str, Damaged] = {}
    for case in CASES:
        try:
            whole = toolguard.render(wire_format, case.calls, case.text, reasoning=case.reasoning)
        except toolguard.FormatError:
            continue
        for how, text in _damages(whole, wire_format):
            if text != whole:
                found.setdefault(text, Damaged(case, whole, text, how))
    every = list(found.values())
    return Random(wire_format.name).sample(every, min(most, len(every)))


def _damages(text: str, wire_format: WireFormat) -> Iterator[tuple[str, str]]:
    fixed = {*wire_format.controls, *wire_format.markup, *wire_format.reader.written.values()}
    signs = sorted((each for each in fixed if not each.strip().isalnum()), key=len, reverse=True)
    known = "|".join(map(re.escape, signs))
    parts = re.split(rf"({known}|</?[\w:]+>|[{{}}\[\]\",:'=()<>])", text)
    own = dict.fromkeys(parts[1::2])
    for i in range(1, len(parts), 2):
        before, piece, behind = "".join(parts[:i]), parts[i], "".join(parts[i + 1 :])
        yield f"{piece!r} deleted", before + behind
        yield f"{piece!r} doubled", before + piece + piece + behind
        if i + 2 < len(parts):
            swapped = parts[i : i + 3][::-1]
            yield f"{piece!r} swapped", "".join([*parts[:i], *swapped, *parts[i + 3 :]])
        for other in own:
            if piece in other:
                continue  # something is put in beside it, which may be said
            yield f"{piece!r} replaced by {other!r}", before + other + behind


def called(turn: toolguard.Turn) -> Calls:
    return [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
