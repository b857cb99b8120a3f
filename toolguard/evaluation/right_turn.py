"""The right turn of a case as a model would write it, and where its names and values stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..formats.render import python_text, render
from ..formats.wire_format import WireFormat
from .cases import Case

Span = tuple[int, int]


@dataclass(frozen=True)
class RightTurn:
    """A turn that answers a case.

    Attributes:
        text: the turn, without its end.
        content: where the names and values of its calls stand in it (start, end), in order.
    """

    text: str
    content: tuple[Span, ...]

    def after(self, before: str) -> RightTurn:
        """The same, with something before it."""
        moved = ((start + len(before), end + len(before)) for start, end in self.content)
        return RightTurn(before + self.text, tuple(moved))


def right_turn(case: Case, wire_format: WireFormat) -> RightTurn | None:
    """The expected calls in a wire format, or the expected reply; None if any reply will do.

    Raises:
        FormatError: the format cannot write these calls.
    """
    if not case.calls:
        return None if case.reply is None else RightTurn(case.reply, ())
    text = render(wire_format, case.calls)
    return RightTurn(text, content_spans(text, case.calls))


def content_spans(text: str, calls: Sequence[Mapping[str, Any]], at: int = 0) -> tuple[Span, ...]:
    """Where the names and values of calls stand in a text that says them, from a place on.

    They stand in the order in which they were written: each is looked for behind the one before it,
    and behind its key.
    """
    return tuple(_spans(text, calls, at))


def _spans(text: str, calls: Sequence[Mapping[str, Any]], at: int) -> Iterator[Span]:
    for call in calls:
        for kind, leaf in (("value", call["name"]), *_leaves(call["arguments"])):
            found = _find(text, leaf, at)
            if found is not None:
                at = found[1]
                if kind == "value":
                    yield found


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield "key", key
                yield from _leaves(inner)
        case list():
            for inner in value:
                yield from _leaves(inner)
        case _:
            yield "value", value


def _find(text: str, leaf: Any, at: int) -> Span | None:
    """Where a leaf stands next, in whichever way formats write it; the quotes are not part."""
    if isinstance(leaf, str):
        escaped = json.dumps(leaf, ensure_ascii=False)[1:-1]
        ways = {leaf, escaped, json.dumps(leaf)[1:-1], python_text(leaf, "'")[1:-1]}
    else:
        ways = {json.dumps(leaf), str(leaf)}
    starts = [(start, -len(way)) for way in ways if way and (start := text.find(way, at)) >= 0]
    if not starts:
        return None
    start, length = min(starts)
    return start, start - length
