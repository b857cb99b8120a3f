"""What damage does to a call's literals: signs, quotes, keys, brackets, markup.

A call has stand-ins for its strings (`Zq0z`), so that damage meets what is written around a value,
but never the value.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Literal, NamedTuple, TypeAlias

import toolguard
from toolguard import WireFormat

STAND_IN = re.compile(r"Zq(\d+)z")
_SIGN = re.compile(r"[{}\[\]()\"',:=]|<\|\"\|>")
LOOKS_ESCAPED = re.compile(r"\\[nftbru]")
_DECLARED = re.compile(r"\b(?:refs|note|start|goal|fast|rows|time_zone)\b")
"""Keys that stand in no open object, where another one would be as good."""
_KEY = re.compile(rf"{_DECLARED.pattern}|\bpath\b")
_NAME = re.compile(r"\b(?:edit|route|store|get_time)\b")
_RUN = re.compile(r"[^\w\s](?:[^\w]*[^\w\s])?")
"""Signs in a row, with the white space between them."""
UNESCAPED = ("raw_strings", "encoded_twice", "pair_in_a_string")
_QUOTED = re.compile(r"([\"'])(Zq\d+z)\1")
_VALUES = {"true", "false", "null", "True", "False", "None"}
_SCALAR = re.compile(r"[\"']?(?:Zq\d+z|90\d\d|\b(?:false|False)\b)[\"']?")


Says = Literal["the calls", "the calls and more", "nobody knows"]


class Damaged(NamedTuple):
    """Text with stand-ins, and what it says."""

    text: str
    says: Says = "the calls"


Damage: TypeAlias = Callable[[str, Random], Damaged | None]


def _changed(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _somewhere(pattern: re.Pattern[str], text: str, random: Random) -> re.Match[str] | None:
    found = list(pattern.finditer(text))
    return random.choice(found) if found else None


def sign_lost(text: str, random: Random) -> Damaged | None:
    sign = _somewhere(_SIGN, text, random)
    return Damaged(_changed(text, *sign.span(), "")) if sign else None


def sign_doubled(text: str, random: Random) -> Damaged | None:
    sign = _somewhere(_SIGN, text, random)
    return Damaged(_changed(text, *sign.span(), sign[0] * 2)) if sign else None


def sign_swapped(text: str, random: Random) -> Damaged | None:
    sign = _somewhere(_SIGN, text, random)
    other = random.choice("{}[]()\"',:=;|`*<\\\uff1a\uff0c\uff08\uff09")
    return Damaged(_changed(text, *sign.span(), other)) if sign else None


def sign_moved(text: str, random: Random) -> Damaged | None:
    sign = _somewhere(_SIGN, text, random)
    if not sign:
        return None
    rest = _changed(text, *sign.span(), "")
    at = min(len(rest), max(0, sign.start() + random.choice((-3, -2, -1, 1, 2, 3))))
    held = any(found.start() < at < found.end() for found in STAND_IN.finditer(rest))
    passed = rest[min(at, sign.start()) : max(at, sign.start())]
    # past white space, a quote only makes it a part of the value
    return None if held or not passed.strip() else Damaged(_changed(rest, at, at, sign[0]))


def other_quotes(text: str, random: Random) -> Damaged | None:
    string = _somewhere(_QUOTED, text, random)
    pairs = ("''", '""', "\u201c\u201d", "\u2018\u2019", "``", "\u00ab\u00bb", "\u300c\u300d")
    marks = random.choice((*pairs, ('<|"|>',) * 2, ('"""',) * 2, ('\\"',) * 2))
    if not string:
        return None
    return Damaged(_changed(text, *string.span(), f"{marks[0]}{string[2]}{marks[1]}"))


def prefixed(text: str, random: Random) -> Damaged | None:
    string = _somewhere(_QUOTED, text, random)
    prefix = random.choice(("f", "r", "b", "u", "rb", "$", "@", "str "))
    return Damaged(_changed(text, string.start(), string.start(), prefix)) if string else None


def raw_strings(text: str, random: Random) -> Damaged | None:
    """Values are put in without the escapes that their quotes need."""
    return Damaged(_QUOTED.sub(r"\1Raw\2\1", text)) if _QUOTED.search(text) else None


def python_literals(text: str, random: Random) -> Damaged | None:
    changed = re.sub(r"\b(?:true|false)\b", lambda word: word[0].title(), text)
    changed = re.sub(r'"([^"\n]{1,40})"', r"'\1'", changed)
    return Damaged(changed) if changed != text else None


def closed_early(text: str, random: Random) -> Damaged | None:
    comma = _somewhere(re.compile(r",\s*"), text, random)
    closing = random.choice("})]") + random.choice(("", ", ", ","))
    if not comma:
        return None
    return Damaged(_changed(text, comma.start(), comma.start() + random.choice((0, 1)), closing))


def nested_call(text: str, random: Random) -> Damaged | None:
    """The value is what another call would give."""
    value = _somewhere(_SCALAR, text, random)
    inner = value[0] if value else ""
    calls = "now()", f"edit(path={inner})", f"{inner} or now()", f"store(km={inner})"
    more = f"2*{inner}", f"{inner} + 1", f"{inner}.strip()", f"[{inner}][0]", f"now()[{inner}]"
    less = f"{{{inner}}}", "<path>", "...", "$n", f"{inner} if n else 1", f"{inner} % 9009"
    twice = f"{inner} {inner}", f"{inner} + {inner}", f"{inner}: {inner}", f"str({inner})"
    new = random.choice((*calls, *more, *less, *twice))
    return Damaged(_changed(text, *value.span(), new), "nobody knows") if value else None


def trailing_junk(text: str, random: Random) -> Damaged | None:
    """What follows a value or a bracket reads as an argument or a call that the turn has not."""
    after = _somewhere(re.compile(rf"{_SCALAR.pattern}|[}})\]]"), text, random)
    pairs = ", n=9008", " with n: 9008", ", note='x y'", " # n=9008", " // n=9008", "n:9008"
    more = " (n=9008)", " n=9008", ', {"n": 9008}', "; now()", ", now()", " and edit(path='b')"
    junk = random.choice((*pairs, *more))
    if not after:
        return None
    return Damaged(_changed(text, after.end(), after.end(), junk), "the calls and more")


def pair_in_a_string(text: str, random: Random) -> Damaged | None:
    pair = _somewhere(re.compile(r'["\']?(\w+)["\']?(\s?[:=]\s?)(["\'])(Zq\d+z)\3'), text, random)
    if not pair:
        return None
    new = random.choice(('"{0}={1}"', "\"{0}='{1}'\"", '"{0}: {1}"', "\"{0}\"='{1}'"))
    return Damaged(_changed(text, *pair.span(), new.format(pair[1], pair[4])))


def encoded_twice(text: str, random: Random) -> Damaged | None:
    inner = _somewhere(re.compile(r"\[[^\[\]]{1,60}\]|\{[^{}]{1,80}\}"), text, random)
    return Damaged(_changed(text, *inner.span(), json.dumps(inner[0]))) if inner else None


def two_signs(text: str, random: Random) -> Damaged | None:
    one = random.choice((sign_lost, sign_doubled, sign_swapped))
    two = random.choice((sign_lost, sign_doubled, sign_swapped, sign_moved, prefixed))
    first = one(text, random)
    return two(first.text, random) if first else None


def run_lost(text: str, random: Random) -> Damaged | None:
    run = _somewhere(_RUN, text, random)
    if not run or len(re.findall(r"[\"']", run[0])) > 1:
        return None  # two strings would be one
    return Damaged(_changed(text, *run.span(), ""))


def run_for_another(text: str, random: Random) -> Damaged | None:
    run, other = _somewhere(_RUN, text, random), _somewhere(_RUN, text, random)
    return Damaged(_changed(text, *run.span(), other[0])) if run and other else None


def markup_lost(text: str, random: Random) -> Damaged | None:
    piece = _somewhere(_markup(), text, random)
    return Damaged(_changed(text, *piece.span(), "")) if piece else None


def markup_doubled(text: str, random: Random) -> Damaged | None:
    piece = _somewhere(_markup(), text, random)
    return Damaged(_changed(text, *piece.span(), piece[0] * 2)) if piece else None


def markup_for_another(text: str, random: Random) -> Damaged | None:
    piece, other = (_somewhere(_markup(), text, random) for _ in range(2))
    return Damaged(_changed(text, *piece.span(), other[0])) if piece and other else None


def markup_cut(text: str, random: Random) -> Damaged | None:
    piece = _somewhere(_markup(), text, random)
    if not piece:
        return None
    lost, at = random.randrange(1, 4), random.randrange(len(piece[0]))
    return Damaged(_changed(text, *piece.span(), piece[0][:at] + piece[0][at + lost :]))


def cut_off(text: str, random: Random) -> Damaged | None:
    *_, last = re.finditer(rf"{_NAME.pattern}|\b(?:log|now)\b", text)
    at = random.randrange(last.start() + 1, len(text))  # nobody misses a call that has not begun
    held = (found.start() for found in STAND_IN.finditer(text) if found.start() < at < found.end())
    return Damaged(text[: next(held, at)])


def misspelled(text: str, random: Random) -> Damaged | None:
    """A key or a name in other letters, and maybe a damaged sign."""
    word = _somewhere(random.choice((_DECLARED, _DECLARED, _NAME)), text, random)
    if not word:
        return None
    said, at = word[0], random.randrange(1, len(word[0]))
    others = said[:at] + said[at + 1 :], said[:at] + said[at - 1 :], said.title(), f"{said}s"
    damaged = _changed(text, *word.span(), random.choice((*others, said.replace("_", " "))))
    more = random.choice((None, sign_lost, sign_swapped))
    return more(damaged, random) if more else Damaged(damaged)


def key_lost(text: str, random: Random) -> Damaged | None:
    key = _somewhere(re.compile(rf"[\"']?(?:{_KEY.pattern})[\"']?\s?[:=]?\s?"), text, random)
    return Damaged(_changed(text, *key.span(), "")) if key else None


def value_lost(text: str, random: Random) -> Damaged | None:
    value = _somewhere(_SCALAR, text, random)
    if not value or text[value.end() :].startswith("]"):
        return None  # a list may end in a comma
    return Damaged(_changed(text, *value.span(), ""), "nobody knows")


def bare_words(text: str, random: Random) -> Damaged | None:
    """Keys, or strings, without quotes."""
    if random.random() < 0.5:
        changed = re.sub(rf"[\"']({_KEY.pattern}|n|m|km)[\"']", r"\1", text)
    else:
        changed = _QUOTED.sub(r"\2", text)
    return Damaged(changed) if changed != text else None


def escaped(text: str, random: Random) -> Damaged | None:
    """As in Markdown, in HTML, in a string."""
    ways: tuple[Callable[[str], str], ...] = (
        lambda it: it.replace("_", "\\_"),
        html.escape,
        lambda it: it.replace('"', '\\"'),
        lambda it: json.dumps(it)[1:-1],
    )
    return Damaged(random.choice(ways)(text))


def wrapped(text: str, random: Random) -> Damaged | None:
    fences = ("```json\n{}\n```", "```\n{}\n```", "```python\n{}\n```", "`{}`", "**{}**")
    frames = ("<function_call>{}</function_call>", '{{"tool_calls": [{}]}}', "[{}]", "({})", '"{}"')
    answers = ("Sure: {}", "{} Done.", "<think>Hm.</think>\n{}", "{}\n{}", "{};", "print({})")
    return Damaged(random.choice((*fences, *frames, *answers)).replace("{}", text))


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (
        *(sign_lost, sign_doubled, sign_swapped, sign_moved, two_signs, other_quotes, prefixed),
        *(raw_strings, python_literals, closed_early, nested_call, trailing_junk),
        *(pair_in_a_string, encoded_twice, run_lost, run_for_another, cut_off, misspelled),
        *(markup_lost, markup_doubled, markup_for_another, markup_cut, key_lost, value_lost),
        *(bare_words, escaped, wrapped),
    )
}


@cache
def _markup() -> re.Pattern[str]:
    """What any format writes besides words, values and signs."""
    pieces: set[str] = set()
    for name in toolguard.format_names():
        wire_format = WireFormat.load(name)
        pieces.update(wire_format.controls, wire_format.reader.written.values())
    pieces -= _VALUES
    marks = sorted((re.escape(piece) for piece in pieces if len(piece) > 3), key=len, reverse=True)
    return re.compile("|".join(marks))
