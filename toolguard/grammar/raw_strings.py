"""Strings without quotes, and what ends them.

The engine counts characters, and sees to it that a string holds nothing that ends it; both at once
make its lexer explode. So only what comes before the first character that may begin an end is
counted: most strings have none of these.
"""

from __future__ import annotations

import re
from dataclasses import replace

from ..formats.nodes import (
    Alt,
    Control,
    Literal,
    Node,
    Pattern,
    Raw,
    Seq,
    Strings,
    Taken,
    Until,
    optional,
)

ANY = r"[\s\S]"


def stopped(raw: Raw, stop: Literal | Control, taken: Taken | None) -> Node:
    """A string without quotes, and what ends it; `taken` is what it may not be."""
    strings = raw.strings or Strings()
    if strings.pattern is not None or (not strings.low and strings.high is None):
        return _up_to(replace(raw, taken=taken), stop)
    signs = {stop.text[0], *(mark[0] for mark in (taken.marks if taken else ()))}
    listed = "".join(map(re.escape, sorted(signs)))
    high = strings.high
    counted = _counted(listed, strings, raw.lined)
    options: list[Node] = [Seq((optional(counted) if not strings.low else counted, stop))]
    if high != 0:
        # The mask does not count it, but what completes a turn does.
        rest = Raw(rf"[{listed}]{ANY}*", strings=Strings(low=strings.low))
        before = Pattern(rf"[^{listed}]{{1,{'' if high is None else high}}}")
        inside = replace(taken, openers=()) if taken and taken.inside else None
        options.append(_up_to(replace(rest, taken=taken), stop))
        options.append(Seq((before, _up_to(replace(rest, taken=inside), stop))))
    return Alt(tuple(options))


def _up_to(raw: Raw, stop: Literal | Control) -> Node:
    if isinstance(stop, Literal):
        return Until(raw.regex, stop.text, raw.also, raw.taken, raw.strings, raw.lined)
    return Seq((replace(raw, stop=stop.text), stop))


def _counted(listed: str, strings: Strings, lined: bool) -> Pattern:
    """A string with none of these characters, within its bounds."""
    low, high = strings.low, strings.high
    char, edge = f"[^{listed}]", rf"[^{listed}\n]"

    def others(beside: int) -> str:
        """The characters that there may be beside so many."""
        return f"{char}{{{max(low - beside, 0)},{'' if high is None else high - beside}}}"

    if not lined:
        return Pattern(f"{char}{others(1)}" if high != 0 else "", strings=strings)
    # A line end on a side does not count, but one next to it does.
    options = [rf"\n{others(0)}\n"]
    if not low:
        options.append(r"\n?")
    if high != 0:
        options += [rf"\n{others(1)}{edge}", rf"{edge}{others(1)}\n"]
        if low < 2:
            options.append(edge)
    if high is None or high >= 2:
        options.append(f"{edge}{others(2)}{edge}")
    return Pattern("|".join(options), strings=strings)
