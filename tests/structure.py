"""Turns with one structural token deleted, doubled, swapped, or replaced by one like it."""

from __future__ import annotations

import re
from collections.abc import Iterator
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


def weather(**arguments: Any) -> dict[str, Any]:
    return {"name": "get_weather", "arguments": arguments}


ZONE = {"name": "get_time", "arguments": {"zone": "UTC"}}
PING = {"name": "ping", "arguments": {}}
NESTED = weather(city="Oslo", options={"metric": True, "tags": ["sun", "two days"]})


class Case(NamedTuple):
    calls: Calls
    text: str = ""
    reasoning: str = ""


CASES = {
    "arguments": Case([weather(city="Berlin", unit="celsius", days=3)]),
    "calls": Case([weather(city="Berlin", unit="celsius"), ZONE]),
    "alike": Case([weather(city="Berlin"), weather(city="Rome")]),
    "nested": Case([NESTED]),
    "empty": Case([PING, ZONE]),
    "said": Case([weather(city="Berlin", unit="celsius")], "I look it up. "),
    "thought": Case([weather(city="Berlin", unit="celsius")], "", "They want the weather."),
    "thought and said": Case([weather(city="Rome"), ZONE], "Let me see. ", "Two calls."),
}


def rendered(wire_format: WireFormat, case: Case) -> str | None:
    """The turn; None where the format cannot say it."""
    try:
        return toolguard.render(
            wire_format, case.calls, case.text, reasoning=case.reasoning
        )
    except toolguard.FormatError:
        return None


def pieces(text: str, wire_format: WireFormat) -> list[str]:
    """A turn, cut at its structural tokens: they have the odd places."""
    fixed = {*wire_format.controls, *wire_format.markup, *wire_format.reader.written.values()}
    signs = [each for each in fixed if not each.strip().isalnum()]
    known = "|".join(map(re.escape, sorted(signs, key=len, reverse=True)))
    return re.split(rf"({known}|</?[\w:]+>|[{{}}\[\]\",:'=()<>])", text)


class Damage(NamedTuple):
    what: str
    text: str


def damaged(text: str, wire_format: WireFormat) -> Iterator[Damage]:
    parts = pieces(text, wire_format)
    own = dict.fromkeys(parts[1::2])
    for i in range(1, len(parts), 2):
        before, piece, behind = "".join(parts[:i]), parts[i], "".join(parts[i + 1 :])
        yield Damage(f"delete {piece!r}", before + behind)
        yield Damage(f"double {piece!r}", before + piece + piece + behind)
        if i + 2 < len(parts):
            a, between, b = parts[i : i + 3]
            yield Damage(f"swap {a!r} {b!r}", before + b + between + a + "".join(parts[i + 3 :]))
        for other in own:
            if other != piece:
                yield Damage(f"replace {piece!r} {other!r}", before + other + behind)


def called(turn: toolguard.Turn) -> Calls:
    return [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
