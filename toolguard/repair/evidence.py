"""Proof: whatever a call says was said by the turn."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

from ..formats.reader import SPACE, begun_length
from ..formats.wire_format import WireFormat
from ..parsing.turn import Call, Turn
from ..tools.toolset import Arguments, Tool, Toolset
from .edits import Edit
from .search import Way

_PUT_IN = ("add_structure", "add_closer", "add_opener", "add_quote", "restore_tag", "wrong_sign")
_CLOSING = {"}": "{", "]": "[", ")": "("}
_OTHER = _CLOSING | {opening: closing for closing, opening in _CLOSING.items()}
QUOTES = ('"', "'", '<|"|>', "<escape>")
_MARKS = tuple("\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb\u300c\u300d")
_SEPARATORS = ":;,(){}[]\"'"
_SIGNS = "|;=:,<>{}[]()*"
_NEAR = 16  # characters
_MOVED = 4  # characters
_ALIKE = 0.6  # as `SequenceMatcher` has it
_PAIR = re.compile(r",\s*[\"']?[\w-]+[\"']?\s*[:=]")
_KEY = re.compile(r"[\"']([^\"']*)[\"']\s*\Z")
_FIELD = re.compile(r"[\"'](?:arguments|parameters|args)[\"']\s*[:=]\s*\Z")
_BARE = re.compile(r"-?\d+(?:\.\d+)?|true|false|null|True|False|None")
_LAST_BARE = re.compile(rf"\s(?:{_BARE.pattern})\Z")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def invented(call: Call, source: str) -> str | None:
    """The first name, key or value of a call that its source does not hold; None if all are there.

    Strings may be spelled with the escapes of JSON, once or twice, or of Python; numbers may be
    written otherwise, as long as their value is the same.
    """
    numbers: set[float] | None = None
    for said in (call.name, *(part.said for part in _parts(call.arguments))):
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


def holds_tags(call: Call, wire_format: WireFormat) -> bool:
    """Whether a string of it holds a tag of the format: it took in what follows it."""
    return any(tag in part.said for part in _strings(call.arguments) for tag in wire_format.tags)


def spans_structure(call: Call) -> bool:
    """Whether a string of it ends as what comes before a string does: it took in what was lost."""
    texts = (part.said for part in _strings(call.arguments))
    return any(text.rstrip().endswith(("=", "(", "{", "[")) for text in texts)


def doubtful(way: Way, source: str, turn: Turn, wire_format: WireFormat, toolset: Toolset) -> bool:
    """Whether the edits leave something of the source without account: what was put in may be in
    the turn already, out of its place, or what no call has now says something.

    Args:
        way: the turn with the edits.
        source: the turn without them.
        turn: what it says now.
        toolset: the tools that were offered.
    """
    if not way.edits:
        return False
    marks = ("", *QUOTES, *wire_format.controls)
    places = list(_places(way, source, turn, marks))
    put_in = {place.piece for place in places} - {""}
    if any(not place.edit.after and place.left_out in put_in for place in places):
        return True  # what was meant stood elsewhere: a closer, too early and then left out
    words = {edit.before for edit in way.edits if edit.rule == "quote_word"}
    keys = {key for tool in toolset.tools for key in tool.keys}
    if words - keys - {*toolset.names}:
        return True  # what lost its quotes may be all that it stands in
    if any(map(_is_swapped, way.edits, way.edits[1:])):
        return True
    if _is_remade(way.edits) or any(_ends_bare(place, places) for place in places):
        return True
    argument = _arguments(toolset.names, frozenset(keys))
    if any(
        _says(place) or _took_in(place, argument) or _split(place, wire_format) for place in places
    ):
        return True
    if any(_lost_call(place, turn, toolset) or _runs_on(place, turn) for place in places):
        return True
    added = [place for place in places if place.edit.rule in _PUT_IN]
    pieces = {place.piece for place in added} - {""}
    if any(_stands(place, pieces, turn, wire_format) for place in added):
        return True
    if any(_repeats(call.arguments) or holds_tags(call, wire_format) for call in turn.calls):
        return True
    if put_in & {*_CLOSING} and any(_sank(call, toolset[call.name]) for call in turn.calls):
        return True
    if turn.reasoning and put_in & {part.text for part in wire_format.reasoning.opening}:
        return True  # what was said is no thought
    dropped = {edit.before for edit in way.edits if edit.rule == "drop_stray"} & {*_OTHER}
    texts = [part.said for call in turn.calls for part in _strings(call.arguments)]
    if any(text.count(_OTHER[sign]) > text.count(sign) for sign in dropped for text in texts):
        return True  # its other half went into a value
    torn = [p.piece.removesuffix(p.left_out) for p in places if p.edit.rule == "restore_bracket"]
    if any(text.endswith(lost) for lost in torn for text in texts):
        return True  # and so did the beginning of the tag
    return _is_cut(way, turn, wire_format, toolset, argument)


def _is_cut(
    way: Way, turn: Turn, wire_format: WireFormat, toolset: Toolset, argument: re.Pattern[str]
) -> bool:
    """Whether what no call has now is an argument, or a part of a call, or the beginning of one."""
    cut = [edit.before for edit in way.edits if edit.rule == "cut_text"]
    if any(re.search(r"[{}\[\]]", text) or _BARE.fullmatch(text.strip(SPACE)) for text in cut):
        return True
    tagged = [text for text in cut if any(tag in text for tag in wire_format.tags)]
    if any(name in text for name in toolset.names for text in tagged):
        return True
    cut.append(turn.text)
    inner = (*wire_format.markup, *wire_format.inner)
    if any(piece in text for piece in inner for text in cut):
        return True
    cut += (edit.before for edit in way.edits if edit.rule == "drop_control")
    if turn.calls:
        cut.append(way.text[turn.calls[-1].span[1] :])
    signs = [text for text in wire_format.tags if text[0] in _SIGNS]
    return any(begun_length(text.rstrip(SPACE), signs) for text in cut) or any(
        map(argument.search, cut)
    )


class _Place(NamedTuple):
    """An edit, and what stands around it.

    Attributes:
        edit: the edit.
        piece: what it put in, without white space; `left_out`: what it left out.
        before: the turn in front of it, with the edits there; `after`: what follows.
        left: the character in front of it in the source; `right`: the one behind it.
        inside: it is among the arguments of a call.
        strings: those of the calls that begin or end there.
    """

    edit: Edit
    piece: str
    left_out: str
    before: str
    after: str
    left: str
    right: str
    inside: bool
    strings: list[_Part]


class _Part(NamedTuple):
    """What a value is made of: a key, or a scalar that is an item of a list, or else a value."""

    said: Any
    place: Literal["key", "item", "value"]


def _places(way: Way, source: str, turn: Turn, marks: tuple[str, ...]) -> Iterator[_Place]:
    strings = [part for call in turn.calls for part in _strings(call.arguments)]
    longer = 0
    for edit in way.edits:
        place = edit.span[0] + longer
        before, after = way.text[:place], way.text[place + len(edit.after) :]
        longer += len(edit.after) - len(edit.before)
        inside = any(
            call.name in way.text[call.span[0] : place]
            for call in turn.calls
            if call.span[0] < place < call.span[1]
        )
        yield _Place(
            edit,
            edit.after.strip(SPACE),
            edit.before.strip(SPACE),
            before,
            after,
            source[edit.span[0] - 1 : edit.span[0]],
            source[edit.span[1] : edit.span[1] + 1],
            inside,
            [part for part in strings if _is_beside(part.said, before, after, marks)],
        )


def _parts(value: Any, place: Literal["item", "value"] = "value") -> Iterator[_Part]:
    """The keys and the scalars of a value."""
    match value:
        case Mapping():
            for key, inner in value.items():
                yield _Part(key, "key")
                yield from _parts(inner)
        case list():
            for inner in value:
                yield from _parts(inner, "item")
        case _:
            yield _Part(value, place)


def _strings(value: Any) -> Iterator[_Part]:
    """The keys and the strings of a value."""
    return (part for part in _parts(value) if isinstance(part.said, str))


def _is_beside(text: str, before: str, after: str, marks: tuple[str, ...]) -> bool:
    """Whether a string ends or begins there, with or without what marks its end, and space."""
    befores, afters = (before, before.rstrip(SPACE)), (after, after.lstrip(SPACE))
    return bool(text) and any(
        any(left.endswith(written + mark) for left in befores)
        or any(right.startswith(mark + written) for right in afters)
        for written in _spellings(text)
        for mark in marks
    )


def _says(place: _Place) -> bool:
    """Whether what was left out among the arguments is a part of one, as in `2*3` or `$n`, or the
    quotation marks that make it a string; or those that were escaped do."""
    if place.edit.rule == "escape_quotes":  # at either end of it, they may be more than one mark
        return place.before.endswith(_MARKS) or place.left_out.endswith(_MARKS)
    if place.edit.rule not in ("drop_control", "drop_stray") or not place.inside:
        return False
    if any(mark in place.left_out for mark in (*_MARKS, *QUOTES)):
        return True
    if place.edit.rule == "drop_control":
        return bool(re.search(r"\w\Z", place.left_out))
    if place.left_out in _SEPARATORS:
        return False
    beside = place.before[-_NEAR:].rstrip(" \t")[-1:] + place.after[:_NEAR].lstrip(" \t")[:1]
    return bool(re.search(r"[\w\"']", beside))


def _is_swapped(first: Edit, second: Edit) -> bool:
    """Whether a sign was left out beside the quotation mark that was put in: it may be the value's,
    as in `=SUM(A1)`; or one was put in, and those that are there became a part of the value."""
    if {first.rule, second.rule} == {"add_quote", "escape_quotes"}:
        return True
    if first.span[1] != second.span[0]:
        return False
    stray = "drop_stray" in (first.rule, second.rule)
    return stray and any(
        e.after in QUOTES or len(e.after.strip(SPACE)) > 1 for e in (first, second)
    )


def _is_remade(edits: Sequence[Edit]) -> bool:
    """Whether items became keys, or keys items, where a bracket was left out: another bracket may
    have been the wrong one."""
    signs = {(edit.before, edit.after) for edit in edits if edit.rule == "wrong_sign"}
    dropped = {edit.before for edit in edits if edit.rule == "drop_stray"}
    return bool(signs & {(",", ":"), (":", ",")} and dropped & {*_OTHER})


def _ends_bare(place: _Place, places: Sequence[_Place]) -> bool:
    """Whether more than a quotation mark was lost where it was put in, behind what may be a number
    or a constant of its own."""
    more = any(
        other.edit.rule == "add_closer" and other.edit.span[0] == place.edit.span[0]
        for other in places
    )
    texts = (part.said for part in place.strings)
    return more and place.piece in QUOTES and any(map(_LAST_BARE.search, texts))


def _split(place: _Place, wire_format: WireFormat) -> bool:
    """Whether a comma was put in where one value may have been meant, or none: `f"a"`, `[1][0]`."""
    if place.piece != ",":
        return False
    if any(f'"{part.said}"' in wire_format.markup for part in place.strings):
        return True  # a field of the format, and no item
    sides = place.left, place.right
    marked = any(side in _MARKS for side in sides) and any(map(str.isalpha, sides))
    return marked or all(map(str.isalnum, sides)) or place.right in ("[", "{")


def _lost_call(place: _Place, turn: Turn, toolset: Toolset) -> bool:
    """Whether a tag was left out with, or beside, the name of a tool that no call is to now."""
    at = len(place.before)
    if place.edit.rule != "drop_control" or any(c.span[0] <= at <= c.span[1] for c in turn.calls):
        return False
    before, after = place.before.rstrip(SPACE), place.after.lstrip(SPACE)
    named = any(name in place.left_out for name in toolset.names)
    return named or before.endswith(toolset.names) or after.startswith(toolset.names)


def _runs_on(place: _Place, turn: Turn) -> bool:
    """Whether the last call was closed where more of it goes on, as text now."""
    rest = place.after.strip(SPACE)
    if place.edit.rule != "add_closer" or not rest or not turn.text.strip(SPACE).endswith(rest):
        return False
    return place.after[0] not in SPACE or not rest[0].isalpha()


def _sank(call: Call, tool: Tool) -> bool:
    """Whether an object inside the arguments has one of them: it was not closed in time."""
    inner = (value for value in call.arguments.values() if isinstance(value, dict | list))
    own = tool.parameters.get("properties", {})
    return any(
        part.place == "key" and part.said in own for value in inner for part in _parts(value)
    )


def _repeats(value: Any) -> bool:
    """Whether an object in it has a key twice: one of the two values is lost."""
    match value:
        case Mapping():
            repeated = isinstance(value, Arguments) and bool(value.repeated)
            return repeated or any(map(_repeats, value.values()))
        case list():
            return any(map(_repeats, value))
        case _:
            return False


def _took_in(place: _Place, argument: re.Pattern[str]) -> bool:
    """Whether a string beside the edit holds what may not be its own."""
    quote = place.piece in QUOTES
    opens = place.after.lstrip(SPACE)[:1] in tuple("\"'")
    for text, where in place.strings if place.piece else ():
        said = normalize("NFKC", text).strip(SPACE)  # a sign may be as wide as an ideograph
        ends = {said[:1], said[-1:]}
        begins = said[:1] in (*_MARKS, *(",=:;)]}" if opens else ""))
        if place.piece in ends or begins or said[-1:] in tuple(",=:([{<"):
            return True
        of_tag = len(place.piece) > 1 or (place.piece == ">" and said[:1] in tuple("<=:"))
        if of_tag and is_torn(said):
            return True
        if (quote or where == "key") and ends & {*_SIGNS, *_MARKS, "\\"}:
            return True
        if quote and (
            (where == "item" and ("," in said or _LAST_BARE.search(said)))
            or text != text.strip(SPACE)
            or _BARE.fullmatch(said)
        ):
            return True
        if quote and (argument.search(said) or _PAIR.search(said)):
            return True
        for closing, opening in _CLOSING.items():
            more = said.count(closing) - said.count(opening)
            ends_so = not re.search(r"\w", said.rpartition(closing)[2])
            if (more > 0 and ends_so) or (more and quote):
                return True
    return False


def is_torn(said: str) -> bool:
    """Whether a string begins or ends with a sign that is part of no pair: what was lost, maybe."""
    pairs = {**_CLOSING, ">": "<"}
    unpaired = {
        sign for one in pairs.items() if said.count(one[0]) != said.count(one[1]) for sign in one
    }
    unpaired |= {mark for mark in "\"'`" if said.count(mark) % 2}
    return said[:1] in {*unpaired, *"=:,;|>)]}"} or said[-1:] in {*unpaired, *"=|<([{"}


def _stands(place: _Place, put_in: Collection[str], turn: Turn, wire_format: WireFormat) -> bool:
    """Whether what was put in may be in the turn already, or makes what nobody wrote."""
    piece, before, after = place.piece, place.before, place.after
    strings = [part.said for call in turn.calls for part in _strings(call.arguments)]
    if not piece:
        return False
    if piece in QUOTES:
        # an empty string that nobody wrote, or one of what stands between strings
        empty = before.endswith(piece) or after.startswith(piece)
        return empty or any(_is_structure(said, wire_format) for said in strings)
    if piece == "[" and "]" in put_in and place.inside:
        return True  # a list that nobody wrote
    if piece == "{" and "}" in put_in and place.inside and not _FIELD.search(before):
        return True  # an object that nobody wrote
    if piece in "[{" and after.lstrip(SPACE)[:1] in ("]", "}"):
        return True  # nor an empty one, or an empty object
    if len(piece) > 1:
        stops = tuple(value.stop for value in wire_format.reader.values.values())
        if after.startswith(stops) or any(piece in said for said in strings):
            return True  # a value that nobody wrote, or one that has it already
        word = piece.strip("\"'")
        if word.isidentifier() and any(re.search(rf"\b{word}\Z", said) for said in strings):
            return True  # or the word of it
        if place.edit.after[-1] in SPACE and after[:1] in tuple(SPACE):
            return True  # whose white space that is, nobody can say
        beside = (part.said for part in place.strings)
        return (
            _is_damaged(place, put_in, wire_format)
            or any(_is_half_written(said, piece, wire_format) for said in beside)
            or any(_is_like(said[-len(piece) - 1 :], piece) for said in strings if len(piece) > 4)
        )
    if piece in _CLOSING:
        opening = re.escape(_CLOSING[piece])
        if piece == "]" and re.search(r"\[\s*(?:\{\s*\}\s*)?\Z", before):
            return True  # nothing of it is there, or the signs of an object
        ends = [said for said in strings if said.rstrip().endswith(piece)]
        return bool(re.search(rf"{opening}\s*{opening}", before)) or any(
            said.count(piece) > said.count(_CLOSING[piece]) for said in ends
        )
    if re.match(rf"[\s\[{{(\"']*{re.escape(piece)}", after):
        return True  # it went into the value
    key = _KEY.search(before)
    if key and piece in key[1]:
        return True  # or into the key
    sides = before.rstrip(f"{SPACE}]}})")[::-1], after.lstrip(f"{SPACE}[{{(")
    return any(_in_string(side, piece) for side in sides)


def _is_damaged(place: _Place, put_in: Collection[str], wire_format: WireFormat) -> bool:
    """Whether what is left of damaged markup stands beside where it was put in."""
    following, said = place.after.lstrip(SPACE), [part.said for part in place.strings]
    if place.piece.endswith(">") and place.edit.rule == "add_structure":
        firsts = (text.strip(SPACE).partition("\n")[0] for text in said)
        if any(">" in first and following.startswith(first) for first in firsts):
            return True
    whole = following.startswith(wire_format.tags)
    return any(
        _is_like(near, piece)
        for piece in put_in
        if len(piece) > 1
        for near in (
            *([] if whole else [following[: len(piece) + 3]]),
            *(text[-len(piece) - 1 :] for text in said),
            *(text[:size] for text in said for size in range(3, len(piece))),
            *(text[-size:] for text in said for size in range(3, len(piece))),
        )
    )


def _is_like(text: str, piece: str) -> bool:
    return SequenceMatcher(None, text, piece, autojunk=False).ratio() >= _ALIKE


@lru_cache(maxsize=256)
def _arguments(names: tuple[str, ...], keys: frozenset[str]) -> re.Pattern[str]:
    """What reads as an argument or a call: its name beside a sign, a field of JSON, a tag."""
    known = "|".join(map(re.escape, sorted(keys))) or "(?!)"
    called = "|".join(map(re.escape, sorted(names))) or "(?!)"
    return re.compile(
        rf"(?<![\w.])(?:{known})(?:[\"']?\s?[:=]|,\S|[\"'])|(?<![\w.])(?:{called})[({{\[\"']"
        r"|[\"']\w+[\"']\s*[:=]|<\w[\w:]*[ =]"
    )


def _is_structure(said: str, wire_format: WireFormat) -> bool:
    """Whether a string says nothing but signs, or begins or ends with markup of the format."""
    marked = said.startswith(wire_format.markup) or said.endswith(wire_format.markup)
    spelled = wire_format.spelled.search(said)
    return bool(said) and (not re.search(r"\w", said) or marked or bool(spelled))


def _is_half_written(said: str, piece: str, wire_format: WireFormat) -> bool:
    """Whether a string begins or ends with some of what the format writes; or as a word in a tag,
    where the end of one was put in."""
    written = [text.strip(SPACE) for text in wire_format.reader.written.values()]
    marks = (text for text in written if len(text) > 3 and not _BARE.fullmatch(text))
    said = said.strip(SPACE)
    if any(said.startswith(text[:3]) or said.endswith(text[-3:]) for text in marks):
        return True
    words = (text for text in written if text[:1].isalpha() and text.endswith(piece[-2:]))
    return piece[0].isalpha() and any(said.startswith(text[0]) for text in words)


def _in_string(text: str, sign: str) -> bool:
    """Whether a text begins with a quotation mark, and soon has a sign, or one more mark."""
    for quote in (*QUOTES, *(quote[::-1] for quote in QUOTES)):
        if text.startswith(quote):
            inside = text[len(quote) :]
            said = inside.partition(quote)[0].lstrip(SPACE)
            return sign in said[:_MOVED] or inside.startswith(quote)
    return False


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
    yield text.replace("_", "\\_")  # as in Markdown
