"""Proof: whatever a call says was said by the turn."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, NamedTuple

from ..formats.reader import SPACE
from ..formats.wire_format import WireFormat
from ..parsing.turn import Call, Turn
from .edits import Edit
from .search import Way

_PUT_IN = ("add_structure", "add_closer", "add_opener", "add_quote", "restore_tag", "wrong_sign")
_CLOSING = {"}": "{", "]": "[", ")": "("}
QUOTES = ('"', "'", '<|"|>')
_MARKS = tuple("\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb\u300c\u300d")
_STRUCTURE = "=:;,(){}[]<>|!?.\"'"
_NEAR = 16
_PAIR = re.compile(r",\s*[\"']?[\w-]+[\"']?\s*[:=]")
_FIELD = re.compile(r"[\"'](?:arguments|parameters|args)[\"']\s*[:=]\s*\Z")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def invented(call: Call, source: str) -> str | None:
    """The first name, key or value of a call that its source does not hold; None if all are there.

    Strings may be spelled with the escapes of JSON, once or twice, or of Python; numbers may be
    written otherwise, as long as their value is the same.
    """
    numbers: set[float] | None = None
    for said in (call.name, *_said(call.arguments)):
        match said:
            case str():
                if not any(spelling in source for spelling in _spellings(said)):
                    return said
            case None | bool():
                words = {True: ("true", "True"), False: ("false", "False"), None: ("null", "None")}
                if not any(word in source for word in words[said]):
                    return str(said)
            case int() | float():
                if numbers is None:
                    numbers = {float(found[0]) for found in _NUMBER.finditer(source)}
                if float(said) not in numbers:
                    return str(said)
    return None


def spans_structure(call: Call) -> bool:
    """Whether a string of it ends as what comes before a string does: it took in what was lost."""
    texts = (said for said in _said(call.arguments) if isinstance(said, str))
    return any(text.rstrip().endswith(("=", "(", "{", "[")) for text in texts)


def doubtful(way: Way, turn: Turn, wire_format: WireFormat, keys: Collection[str]) -> bool:
    """Whether the edits leave something of the source without account: what was put in may be in
    the turn already, out of its place, or what was left out says something.

    Args:
        way: the turn with the edits.
        turn: what it says now.
        keys: what arguments may be called.
    """
    put_in = {edit.after.strip(SPACE) for edit in way.edits} - {""}
    if any(e.before.strip(SPACE) in put_in and not e.after for e in way.edits):
        return True  # what was meant stood elsewhere: a closer, too early and then left out
    arguments = _arguments(frozenset(keys))
    values = [_Value(s, listed) for call in turn.calls for s, listed in _strings(call.arguments)]
    longer = 0
    for edit in way.edits:
        place = edit.span[0] + longer
        before, after = way.text[:place], way.text[place + len(edit.after) :]
        longer += len(edit.after) - len(edit.before)
        if _says(edit, before, after) or _takes_in(edit, before, after, values, arguments):
            return True
        if edit.rule in _PUT_IN and _stands(edit, before, after, values, put_in, wire_format):
            return True
    gone = [edit.before for edit in way.edits if edit.rule in ("cut_text", "drop_control")]
    if way.edits and turn.calls:
        gone.append(way.text[turn.calls[-1].span[1] :])
    return bool(keys) and any(arguments.search(text) for text in gone)


class _Value(NamedTuple):
    """A string of a call, and whether it is one of a list."""

    text: str
    listed: bool


def _strings(value: Any, listed: bool = False) -> Iterator[tuple[str, bool]]:
    """The keys and the strings of a value."""
    match value:
        case Mapping():
            for key, inner in value.items():
                yield key, False
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner, True)
        case str():
            yield value, listed


def _says(edit: Edit, before: str, after: str) -> bool:
    """Whether a sign that was left out belongs to a value beside it, as in `2*3` or `$n`."""
    sign = edit.before.strip(SPACE)
    if edit.rule != "drop_stray" or sign in _STRUCTURE:
        return False
    return bool(re.search(r"[\w\"'][ \t]*\Z", before[-_NEAR:]) or re.match(r"[ \t]*[\w\"']", after))


def _takes_in(
    edit: Edit,
    before: str,
    after: str,
    values: Sequence[_Value],
    arguments: re.Pattern[str],
) -> bool:
    """Whether a string that an edit ends or begins holds what reads as more than one value."""
    piece = edit.after.strip(SPACE)
    if not piece:
        return False
    if piece in "," and re.search(r"[\"']\Z", before[-1:]) and re.match(r"\w", after):
        return True  # the mark may begin a string, and the word be its prefix
    if piece in "," and re.search(r"\w\Z", before[-1:]) and re.match(r"[\"']", after):
        return True
    for text, listed in values:
        if not _ends_there(text, before, after):
            continue
        if piece in QUOTES and (
            arguments.search(text) or _PAIR.search(text) or (listed and "," in text)
        ):
            return True
        if text[:1] in _MARKS or (piece in QUOTES and text[-1:] in _MARKS):
            return True
        inside = text.rstrip(f"{SPACE},")
        if text.rstrip(SPACE).endswith(",") or inside[-1:] in ("=", ":", "(", "[", "{"):
            return True
        if any(inside.endswith(c) and inside.count(c) > inside.count(_CLOSING[c]) for c in "}])"):
            return True
    return False


def _ends_there(text: str, before: str, after: str) -> bool:
    """Whether a string stands on either side of an edit, with or without its quotes."""
    if not text:
        return False
    for written in _spellings(text):
        for quote in ("", *QUOTES):
            if before.endswith(written + quote) or after.startswith(quote + written):
                return True
    return False


def _stands(
    edit: Edit,
    before: str,
    after: str,
    values: Sequence[_Value],
    put_in: Collection[str],
    wire_format: WireFormat,
) -> bool:
    """Whether what was put in may be in the turn already, or makes what nobody wrote."""
    piece = edit.after.strip(SPACE)
    if piece in QUOTES:
        # an empty string that nobody wrote, or one of what stands between strings
        empty = before.endswith(piece) or after.startswith(piece)
        return empty or any(_is_structure(value.text, wire_format) for value in values)
    if piece == "[" and "]" in put_in and before.rstrip(SPACE).endswith((":", "=")):
        return True  # a list that nobody wrote
    if piece == "{" and "}" in put_in and not _FIELD.search(before):
        return True  # an object that nobody wrote
    if piece in "[{" and after.lstrip(SPACE)[:1] in ("]", "}"):
        return True  # nor an empty one, or an empty object
    if len(piece) > 1:
        near = after.lstrip(SPACE)[: len(piece) + 3]
        like = SequenceMatcher(None, near, piece, autojunk=False).ratio() >= 0.6
        return like or any(piece in value.text for value in values)
    if piece in _CLOSING:
        doubled = rf"{re.escape(_CLOSING[piece])}\s*{re.escape(_CLOSING[piece])}"
        ends = [value.text for value in values if value.text.rstrip().endswith(piece)]
        return bool(re.search(doubled, before)) or any(
            text.count(piece) > text.count(_CLOSING[piece]) for text in ends
        )
    return any(_in_string(t, piece) for t in (before.rstrip(SPACE)[::-1], after.lstrip(SPACE)))


@lru_cache(maxsize=256)
def _arguments(keys: frozenset[str]) -> re.Pattern[str]:
    """One of these names, as that of an argument."""
    known = "|".join(map(re.escape, sorted(keys)))
    return re.compile(rf"(?<![\w.])(?:{known})(?:[\"']?\s?[:=]|,\S)")


def _is_structure(said: str, wire_format: WireFormat) -> bool:
    """Whether a string says nothing but signs, or a control token of the format."""
    return bool(said) and (not re.search(r"\w", said) or bool(wire_format.spelled.search(said)))


def _in_string(text: str, sign: str) -> bool:
    """Whether a text begins with a quotation mark, and goes on with a sign, or one more mark."""
    for quote in (*QUOTES, *(quote[::-1] for quote in QUOTES)):
        if text.startswith(quote):
            inside = text[len(quote) :]
            return inside.lstrip(SPACE).startswith(sign) or inside.startswith(quote)
    return False


def _said(value: Any) -> Iterator[Any]:
    """The keys and the scalars of a value."""
    match value:
        case Mapping():
            for key, inner in value.items():
                yield key
                yield from _said(inner)
        case list():
            for inner in value:
                yield from _said(inner)
        case _:
            yield value


def _spellings(text: str) -> Iterator[str]:
    yield text
    for ascii_only in (False, True):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        yield once.replace("/", "\\/")
    yield repr(text)[1:-1]
    # What a string may not hold was put in escapes, and quotes in it were.
    yield text.replace("'", "\\'")
    yield text.replace("&", "&amp;").replace('"', "&quot;")
    yield text.replace("\\", "\\\\")
