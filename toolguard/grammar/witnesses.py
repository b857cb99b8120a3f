"""Witnesses: terminals that show the mask engine what text may contain, so that masks are cheap.

The engine (llguidance) takes a precomputed part of its vocabulary into a mask only where one
terminal plainly contains it, and none with a complement in it does: it would walk the vocabulary
instead. So beside a terminal of text stand some that plainly say how some of that text may begin.
They change no mask: each beginning of theirs begins such a text too, and nothing may follow them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from ..formats.reader import LEADING_SPACE

_SPACE = r" \t\r\n"
_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])+\]|\((?:\\.|[^()\\])*\)|[\s\S]")


@lru_cache(maxsize=1024)
def witnesses(
    stops: tuple[str, ...],
    blank: bool = True,
    bar: str | None = None,
    openers: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Regular expressions for beginnings of text that contains none of `stops`.

    Until a stop may have begun, no two characters as stops begin; from then on, no character as one
    ends, but for those in the midst of the stop begun.

    Args:
        blank: the text may begin with any amount of white space, else with a bounded one.
        bar: how the text may not begin.
        openers: what it does not begin with, of two characters or more; here, not with these two.

    Returns:
        None at all where there is no plain way to say it.
    """
    mark, times = ("", 0) if bar is None else _last_character(bar)
    if any(len(stop) < 2 or stop[0].isspace() for stop in stops) or (bar and not times):
        return ()
    first, second, last = ("".join(stop[i] for stop in stops) for i in (0, 1, -1))
    if bar is None:
        pair = f"{_one_of(first)}{_none_of(first + second)}"
        unit = f"({_none_of(first)}|{pair})"
        heads = "".join(dict.fromkeys(opener[0] for opener in openers))
        others = [
            _one_of(head) + _none_of(first + "".join(o[1] for o in openers if o[0] == head))
            for head in heads
        ]
        begins = [_none_of(first + heads, "" if blank else _SPACE), pair, *others]
        plain = f"({'|'.join(begins)}){unit}*"
        midst = {stop[:i] for stop in stops for i in range(2, len(stop)) if stop[i - 1] in last}
        begun = [_one_of(first), *map(re.escape, sorted(midst))]
        # The engine sees through one way of going on in a terminal, not through several.
        found = [f"({plain})?{start}{_none_of(last)}*" for start in begun]
        found[0] = f"{plain}|{found[0]}"
    else:  # not the character that ends what is barred as often as there
        rest = f"{_none_of(first + mark)}*"
        marked = f"{re.escape(mark)}{rest}"
        found = [f"{_none_of(first + mark, _SPACE)}{rest}"]
        if times > 1:
            found = [f"{found[0]}|({found[0]})?({marked}){{1,{times - 1}}}"]
    if not blank:
        found = [f"[{_SPACE}]{{0,{LEADING_SPACE}}}({one})" for one in found]
        found.append(f"{_none_of(first + mark)}{{1,{LEADING_SPACE}}}")
    return tuple(found)


def _last_character(regex: str) -> tuple[str, int]:
    """The character that all that matches ends with, and how often it is in there at least.

    Zero times where that is not plain to see.
    """
    tokens = _TOKEN.findall(regex)
    last = tokens[-1]
    literal = last[-1] if len(last) == 2 or last not in "?*+})].$^|" else ""
    if not literal or literal.isalnum() or {"|", "("} & set(tokens):
        return "", 0
    times = [a == last and b not in tuple("?*{") for a, b in pairwise([*tokens, ""])]
    return literal, sum(times)


def _one_of(characters: str) -> str:
    return f"[{_listed(characters)}]"


def _none_of(characters: str, space: str = "") -> str:
    return f"[^{space}{_listed(characters)}]"


def _listed(characters: str) -> str:
    return "".join(re.escape(character) for character in dict.fromkeys(characters))
