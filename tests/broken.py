"""Turns that are broken in one place, and whether what is said of them is true."""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolguard import Fault, Turn, WireFormat
from toolguard.formats.reader import LEADING_SPACE, SPACE, fixed_text

NAMES = ("get_weather", "get_time", "list_zones", "ping")
PROSE = "\n\nThis calls a tool."


def broken(text: str, wire_format: WireFormat) -> Iterator[str]:
    """A turn cut off at, without, or with white space around each of its control tokens and signs,
    and with prose around all of it."""
    parts = [*wire_format.controls, *wire_format.markup]
    pattern = "|".join(map(re.escape, sorted(parts, key=len, reverse=True)))
    for found in re.finditer(pattern + r"|[{}\[\]()]", text):
        start, end = found.span()
        yield text[:start]
        yield text[:end]
        yield text[:start] + text[end:]
        yield text[:start] + " " + text[start:]
        yield text[:start] + " " * 40 + text[start:]
        yield text[:end] + "\n" * 40 + text[end:]
        yield text[:start] + "oops" + text[start:]
        yield text[:end] + text[start:]
    yield text + PROSE
    yield PROSE + text
    yield " " * 40 + text


def is_true(fault: Fault, turn: Turn, wire_format: WireFormat) -> bool:
    """Whether what a message claims can be seen in the turn."""
    start, end = fault.span
    before, here, message = turn.raw[:start], turn.raw[start:end], fault.message
    blank = here[: len(here) - len(here.lstrip(SPACE))]
    closing = [fixed_text(frame.closing) for frame in wire_format.reasonings]
    if "run of white space" in message:
        return blank == here and len(blank) > LEADING_SPACE
    if found := re.match(r"white space in front of '(.*)', where", message):
        return here.isspace() and turn.raw.startswith(found[1], end)
    if message == "white space without an end":
        return not here.strip(SPACE) and len(here) > 32
    if "nothing but white space" in message or message == "nothing at all":
        return not turn.raw.strip(SPACE)
    if message == "reasoning and nothing after it":
        return turn.raw.rstrip(SPACE).endswith(tuple(text.rstrip(SPACE) for text in closing))
    if found := re.fullmatch(r"(['\"])(.*)\1 and nothing after it", message):
        return turn.raw.rstrip(SPACE).endswith(found[2].encode().decode("unicode_escape"))
    if "never closed" in message:
        opened = turn.raw.rfind(wire_format.reasoning_opener)
        return not any(text in turn.raw[opened:] for text in closing)
    if "after a call" in message:
        return any(tool in before for tool in NAMES) and re.search(r"\S", here) is not None
    if "has no number" in message:
        return not re.search(r"\d\Z", before)
    if found := re.search(r"(['\"])(.*?)\1 is missing before", message):
        return not here.startswith(found[2])
    if "closes a call that nothing opened" in message:
        return wire_format.closer in before or wire_format.opener not in before
    return True
