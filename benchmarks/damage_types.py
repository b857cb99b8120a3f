"""Kinds of damage, done to a turn that was rendered from known calls.

Each takes the rendered turn and a source of randomness, and gives the damaged text, or None where
the turn has nothing to damage in that way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, TypeAlias

import toolguard
from toolguard import WireFormat


@dataclass(frozen=True)
class Rendered:
    """A sound turn: `text` is `calls` in `wire_format`."""

    wire_format: WireFormat
    calls: Sequence[Mapping[str, Any]]
    text: str

    @property
    def opener(self) -> str:
        """The opener, where it stands in the turn."""
        opener = self.wire_format.opener
        return opener if opener in self.text else ""

    @property
    def encoded(self) -> str:
        """The first call's arguments as the JSON object that stands in the turn; empty if none."""
        text = json.dumps(self.calls[0]["arguments"], ensure_ascii=False)
        return text if text in self.text else ""

    def with_arguments(self, text: str) -> str:
        return self.text.replace(self.encoded, text, 1)

    def values(self) -> Iterator[Place]:
        """The scalars of arguments but empty strings."""
        at = 0
        for call in self.calls:
            for key, value in call["arguments"].items():
                at = max(self.text.find(key, at), at) + len(key)
                for quote, inner in _spellings(value):
                    start = self.text.find(f"{quote}{inner}{quote}", at)
                    if start >= 0:
                        yield Place(start, start + 2 * len(quote) + len(inner), quote)
                        break


class Place(NamedTuple):
    """Where a scalar stands: `text[start:end]`, with the quotes, if any, on either side."""

    start: int
    end: int
    quote: str


Damage: TypeAlias = Callable[[Rendered, Random], str | None]

_STRING = re.compile(r'(?<!\\)"((?:[^"\\]|\\.)*)"')
_RUN_ON = ("assistant\n\nuser\n\nassistant", "user\n\nassistant\n\nuser", "assistant")
_RESPONSES = (
    "<tool_response>\n[]\n</tool_response>",
    "execution result:[{'status': True, 'message': 'done'}]",
    'user\n<tool_response>{"status": "sent", "id": 12456}</tool_response>',
)


def _spellings(value: Any) -> list[tuple[str, str]]:
    """Quote and inner text of a scalar, as formats write it."""
    match value:
        case "" | dict() | list():
            return []
        case str():
            escaped = json.dumps(value, ensure_ascii=False)[1:-1]
            return [('"', escaped), ("'", value), ('<|"|>', value), ("", value)]
        case _:
            return [("", json.dumps(value)), ("", str(value))]


def _without(text: str, start: int, end: int) -> str:
    return text[:start] + text[end:]


def drop_closer(turn: Rendered, random: Random) -> str | None:
    closers = [c for c in turn.wire_format.controls if turn.text.rstrip().endswith(c)]
    return turn.text.rstrip().removesuffix(max(closers, key=len)) if closers else None


def drop_opener(turn: Rendered, random: Random) -> str | None:
    first = turn.opener or next((c for c in turn.wire_format.controls if c in turn.text), "")
    return turn.text.replace(first, "", 1) if first else None


def drop_last_bracket(turn: Rendered, random: Random) -> str | None:
    place = max(map(turn.text.rfind, "}])"))
    return _without(turn.text, place, place + 1) if place >= 0 else None


def swap_bracket(turn: Rendered, random: Random) -> str | None:
    place = max(map(turn.text.rfind, "}])"))
    if place < 0:
        return None
    other = random.choice([b for b in "}])" if b != turn.text[place]])
    return turn.text[:place] + other + turn.text[place + 1 :]


def equals_for_colon(turn: Rendered, random: Random) -> str | None:
    return turn.with_arguments(turn.encoded.replace('": ', '"=')) if turn.encoded else None


def curly_quotes(turn: Rendered, random: Random) -> str | None:
    if not _STRING.search(turn.encoded):
        return None
    some = random.choice([0, 1])  # all of them, or the first
    return turn.with_arguments(_STRING.sub("\u201c\\1\u201d", turn.encoded, count=some))


def stray_prefix(turn: Rendered, random: Random) -> str | None:
    sign = random.choice([">", "!", "\n>"])
    return turn.text.replace(turn.opener, turn.opener + sign, 1) if turn.opener else None


def role_after_opener(turn: Rendered, random: Random) -> str | None:
    role = random.choice(["\nuser", "user", "\nassistant\n"])
    return turn.text.replace(turn.opener, turn.opener + role, 1) if turn.opener else None


def doubled_opener(turn: Rendered, random: Random) -> str | None:
    again = random.choice(["", "\n"]) + turn.opener
    return turn.text.replace(turn.opener, turn.opener + again, 1) if turn.opener else None


def run_on(turn: Rendered, random: Random) -> str | None:
    return f"{turn.text}\n{random.choice(_RUN_ON)}"


def fabricated_response(turn: Rendered, random: Random) -> str | None:
    return f"{turn.text}\n{random.choice(_RESPONSES)}"


def fabricated_call(turn: Rendered, random: Random) -> str | None:
    """A response and another call after it, neither of which may be believed."""
    arguments = dict(turn.calls[0]["arguments"])
    key = next((k for k, value in arguments.items() if type(value) in (str, int)), None)
    if key is None:
        return None
    arguments[key] = arguments[key] + (7 if isinstance(arguments[key], int) else " too")
    other = {**turn.calls[0], "arguments": arguments}
    again = toolguard.render(turn.wire_format, [other])
    return f"{turn.text}\n{random.choice(_RESPONSES)}\nassistant\n{again}"


def double_encoded(turn: Rendered, random: Random) -> str | None:
    encoded = json.dumps(turn.encoded, ensure_ascii=False)
    return turn.with_arguments(encoded) if turn.encoded else None


def flattened(turn: Rendered, random: Random) -> str | None:
    found = re.search(rf'"\w+": {re.escape(turn.encoded)}', turn.text) if turn.encoded else None
    if found is None or turn.encoded == "{}":
        return None
    return turn.text.replace(found[0], turn.encoded[1:-1], 1)


def trailing_comma(turn: Rendered, random: Random) -> str | None:
    if not turn.encoded or turn.encoded == "{}":
        return None
    return turn.with_arguments(turn.encoded[:-1] + random.choice([",", ", "]) + "}")


def single_quotes(turn: Rendered, random: Random) -> str | None:
    if not turn.encoded or turn.encoded == "{}" or re.search(r"['\\]", turn.encoded):
        return None
    return turn.with_arguments(turn.encoded.replace('"', "'"))


def python_literals(turn: Rendered, random: Random) -> str | None:
    words = {"true": "True", "false": "False", "null": "None"}
    changed = re.sub(
        r'(?<!\\)"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b',
        lambda found: words.get(found[0], found[0]),
        turn.encoded,
    )
    return turn.with_arguments(changed) if changed != turn.encoded else None


def truncated(turn: Rendered, random: Random) -> str | None:
    """Inside a scalar, so that a part of it is left."""
    inside = [
        (place.start + len(place.quote) + 1, place.end - len(place.quote))
        for place in turn.values()
        if place.end - place.start - 2 * len(place.quote) > 1
    ]
    return turn.text[: random.randrange(*random.choice(inside))] if inside else None


def value_deleted(turn: Rendered, random: Random) -> str | None:
    places = list(turn.values())
    if not places:
        return None
    place = random.choice(places)
    return _without(turn.text, place.start, place.end)


def quote_dropped(turn: Rendered, random: Random) -> str | None:
    quoted = [place for place in turn.values() if place.quote]
    if not quoted:
        return None
    start, end, quote = random.choice(quoted)
    if random.choice([True, False]):
        return _without(turn.text, start, start + len(quote))
    return _without(turn.text, end - len(quote), end)


def foreign_format(turn: Rendered, random: Random) -> str | None:
    names = [name for name in toolguard.format_names() if name != turn.wire_format.name]
    try:
        return toolguard.render(WireFormat.load(random.choice(names)), turn.calls)
    except toolguard.FormatError:
        return None


def fenced_json(turn: Rendered, random: Random) -> str | None:
    calls = list(turn.calls)
    return f"```json\n{json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)}\n```"


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (
        *(drop_closer, drop_opener, drop_last_bracket, swap_bracket, equals_for_colon),
        *(curly_quotes, stray_prefix, role_after_opener, doubled_opener, run_on),
        *(fabricated_response, fabricated_call, double_encoded, flattened, trailing_comma),
        *(single_quotes, python_literals, truncated, value_deleted, quote_dropped),
        *(foreign_format, fenced_json),
    )
}
"""By name, in the order of the report."""

HOPELESS = ("truncated", "value_deleted")
"""Nothing can be proved of what these leave: no call may come out."""
