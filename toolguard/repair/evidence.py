"""Proof: whatever a call says was said by the turn, and all that the turn says is in its calls.

A repair is proved where every character of the source is accounted for. What stands beside what was
put in or left out is plain words, so that no sign of it can be a part of what was damaged. What no
call has says nothing. And nothing is made of signs alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import combinations, product, starmap
from typing import Any, NamedTuple
from unicodedata import normalize

from ..formats.reader import SPACE, begun_length
from ..formats.wire_format import WireFormat
from ..parsing.faults import BRACKETS
from ..parsing.opening import Known
from ..parsing.turn import Call, Turn
from ..tools.toolset import Arguments, Tool, Toolset
from .edits import Edit
from .search import Way, tokens

_MARKS = ("<escape>", *"\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb\u300c\u300d")
QUOTES = ('"', "'", '<|"|>', "<escape>")
_SIGNS = re.compile(r"[^\w\s./%+~#@!?&-]|\s\s|[^\S ]|\A\W|\W\Z")
"""What structure is made of, or a word does not begin or end with."""
_BEFORE = re.compile(r"[\s,:;=|(\[{<]\Z")
_BEHIND = re.compile(r"[\s,:;=|)\]}>]")
"""How a string begins or ends that took in what stands between strings."""
_REWRITES = (
    *("straight_quote", "straight_quotes", "python_literal", "python_constant", "split_pair"),
    *("unwrap_double_encoding", "rename_field", "unescape_name", "restore_id", "quote_word"),
    *("fix_escape", "escape_control", "no_arguments", "drop_head", "drop_reasoning"),
    *("cut_text", "cut_controls", "cut_response", "cut_run_on", "add_opener"),
    *("drop_prefix", "equals_to_colon"),
)
"""What stands beside these ended there before."""
_STRUCTURE = "{}[]():;,="
_MOVED = 4  # characters
_LONG = 4  # characters
_ALIKE = 0.6  # as `SequenceMatcher` has it
_BESIDE = 1  # characters between an edit and what stands beside it
_FIELD = re.compile(r"[\"'](?:arguments|parameters|args)[\"']\s*[:=]\s*\Z")
_BARE = re.compile(r"-?\d+(?:\.\d+)?|true|false|null|True|False|None")
_LAST_BARE = re.compile(rf"(?:\A|\s)(?:{_BARE.pattern})\Z")
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
    return any(tag in text for text in _strings(call.arguments) for tag in wire_format.tags)


def spans_structure(call: Call) -> bool:
    """Whether a string of it ends as what comes before a string does: it took in what was lost."""
    return any(text.rstrip().endswith(("=", "(", "{", "[")) for text in _strings(call.arguments))


def accounted(
    way: Way, turn: Turn, wire_format: WireFormat, toolset: Toolset, opened: Known
) -> bool:
    """Whether all that the source of a turn says is in its calls, where the source says it.

    Args:
        way: the turn with the edits.
        turn: what it says now.
        toolset: the tools that were offered.
        opened: what the prompt had opened.
    """
    said = [*_said(way.text, wire_format, opened)]
    places = [*_places(way)]
    put_in = {edit.after.strip(SPACE) for edit in way.edits if not edit.before}
    markup = {e.span for e in way.edits if not e.before and len(e.after.strip(SPACE)) > 1}
    quotes = sum(edit.rule == "add_quote" for edit in way.edits)
    quoted = {edit.before for edit in way.edits if edit.rule == "quote_word"}
    declared = {key for tool in toolset.tools for key in tool.keys}
    keys = {part.said for call in turn.calls for part in _parts(call.arguments) if part.is_key}
    strings = [text for call in turn.calls for text in _strings(call.arguments)]
    return not (
        any(_is_in_doubt(near, place, way, wire_format) for place in places for near in said)
        or any(starmap(_is_like, product(strings, put_in)))
        or any(starmap(_is_swapped, combinations(way.edits, 2)))
        or any(_is_made_up(way.text, place, put_in) for place in places)
        or (max(len(markup), quotes) > 1 and any(e.rule == "add_structure" for e in way.edits))
        or quoted - declared - {*toolset.names}
        or any(map(_SIGNS.search, keys - declared))
        or _is_left_out(way, places, turn, wire_format, toolset)
        or any(_repeats(call.arguments) or holds_tags(call, wire_format) for call in turn.calls)
        or (put_in and any(_sank(call, toolset[call.name]) for call in turn.calls))
        or (turn.reasoning and put_in & {part.text for part in wire_format.reasoning.opening})
    )


class _Said(NamedTuple):
    """What a turn says between its structure.

    Attributes:
        start, end: where; `outer`: the same with what marks both ends.
        text: what it says.
        quoted: it is in quotes.
    """

    start: int
    end: int
    outer: tuple[int, int]
    text: str
    quoted: bool


class _Place(NamedTuple):
    """Where an edit is, in the text with all of them."""

    start: int
    end: int
    edit: Edit


def _is_in_doubt(said: _Said, place: _Place, way: Way, wire_format: WireFormat) -> bool:
    """Whether something is beside an edit, and may have lost or taken in a part of what was damaged
    there: all but plain words; between marks that nobody touched, what ends as that does."""
    (first, last), edit = said.outer, place.edit
    if edit.rule in _REWRITES or max(place.start - last, first - place.end) > _BESIDE:
        return False
    text = normalize("NFKC", said.text)  # a sign may be as wide as an ideograph
    sign = (edit.after or edit.before).strip(SPACE)
    lost = any(mark in (each.before, each.after) for each in way.edits for mark in QUOTES)
    if text and not lost and said.end < last <= place.start:
        return sign in text[-_MOVED:] or bool(_BEFORE.search(text))
    if text and not lost and place.end <= first < said.start:
        return sign in text[:_MOVED] or bool(_BEHIND.match(text))
    if said.quoted:
        return not text or bool(_SIGNS.search(text) or _LAST_BARE.search(text))
    if edit.after[-1:].isspace() and text[:1].isspace():
        return True  # nobody can say whose white space that is
    # A word that ends a tag may have begun there.
    words = (text for text in wire_format.reader.written.values() if text.endswith(sign[-2:]))
    begun = sign[:1].isalpha() and text[:1] in {word[0] for word in words}
    return (
        not text or begun or edit.rule == "drop_control" or bool(_SIGNS.search(text.strip(SPACE)))
    )


def _is_like(text: str, piece: str) -> bool:
    """Whether a string ends with what was put in elsewhere, or with what may be left of it."""
    size, word = len(piece), piece.strip("\"'")
    near = SequenceMatcher(None, text[-size - 1 :], piece, autojunk=False)
    ends = word.isidentifier() and re.search(rf"\b{word}\Z", text)
    return bool(ends) or (size > _LONG and near.ratio() >= _ALIKE)


def _said(text: str, wire_format: WireFormat, opened: Known) -> Iterator[_Said]:
    """The strings and other values of a turn, in order."""
    reader = wire_format.reader
    known = {*reader.written, *reader.numbers, reader.tool}
    for token in tokens(wire_format, text, opened):
        start, end = token.start_pos or 0, token.end_pos or 0
        if value := reader.values.get(token.type):
            inner = end - len(value.markup)
            before = len(value.stop) if text.endswith(value.stop, 0, start) else 0
            outer = start - before, inner + len(value.stop)
            yield _Said(start, inner, outer, token.removesuffix(value.markup), False)
        elif token[:1] in tuple("\"'") and token.type not in reader.written:
            yield _Said(start + 1, end - 1, (start, end), token[1:-1], True)
        elif token.type.startswith("PATTERN") and token.type not in known and token.strip(SPACE):
            yield _Said(start, end, (start, end), token, False)


def _places(way: Way) -> Iterator[_Place]:
    longer = 0
    for edit in way.edits:
        start = edit.span[0] + longer
        yield _Place(start, start + len(edit.after), edit)
        longer += len(edit.after) - len(edit.before)


def _is_swapped(first: Edit, second: Edit) -> bool:
    """Whether a sign was left out beside what is more than a sign, and may be a part of it; or a
    comma stands for it now, as in `2*3`."""
    near = second.span[0] - first.span[1] <= _BESIDE
    signs = {first.rule, second.rule} <= {"wrong_sign", "drop_stray", "add_closer", "add_structure"}
    if signs and any((e.before, e.after) in ((",", ":"), (":", ",")) for e in (first, second)):
        return True  # items became keys, or keys items
    return near and any(
        one.rule == "drop_stray"
        and (
            other.after in QUOTES
            or len(other.after.strip(SPACE)) > 1
            or (other.after.strip(SPACE) == "," and one.before not in _STRUCTURE)
        )
        for one, other in ((first, second), (second, first))
    )


def _is_made_up(text: str, place: _Place, put_in: set[str]) -> bool:
    """Whether an edit makes a list, an object or an item that nobody wrote, or leaves out a part of
    a value, as of `$n`."""
    start, end, edit = place
    piece, before, after = edit.after.strip(SPACE), text[:start].rstrip(SPACE), text[end:].lstrip()
    if edit.rule in ("drop_control", "drop_stray") and any(mark in edit.before for mark in _MARKS):
        return True
    if edit.rule == "drop_stray":
        beside = re.search(r"\w", text[start - 1 : start + 1])
        return edit.before in put_in or bool(beside and edit.before not in _STRUCTURE)
    match piece:
        case ",":
            return before == text[:start] and after[:1] in ("[", "{", "(")
        case "[" | "{":
            both = BRACKETS[piece] in put_in and not _FIELD.search(before)
            return both or after[:1] in ("]", "}")
        case "]":
            return bool(re.search(r"\[\s*(?:\{\s*\}\s*)?\Z", before))
    return False


def _is_left_out(
    way: Way, places: Sequence[_Place], turn: Turn, wire_format: WireFormat, toolset: Toolset
) -> bool:
    """Whether what no call has is an argument, a part of a call, or the beginning of one."""
    cut = [edit.before for edit in way.edits if edit.rule == "cut_text"]
    dropped = [edit.before for edit in way.edits if edit.rule in ("drop_control", "drop_stray")]
    behind = way.text[turn.calls[-1].span[1] :] if turn.calls else ""
    tagged = [text for text in cut if any(tag in text for tag in wire_format.tags)]
    if any(name in text for name in toolset.names for text in (*dropped, *tagged)):
        return True
    if any(re.search(r"[{}\[\]]", text) or _BARE.fullmatch(text.strip(SPACE)) for text in cut):
        return True
    inner = (*wire_format.markup, *wire_format.inner)
    for start, end, edit in places:
        if edit.rule != "drop_control" or any(
            call.span[0] <= start <= call.span[1] for call in turn.calls
        ):
            continue
        before, after = way.text[:start].rstrip(SPACE), way.text[end:].lstrip(SPACE)
        if edit.before.strip(SPACE) in inner or (
            before.endswith(toolset.names) or after.startswith(toolset.names)
        ):
            return True  # what a call without its opener has left
    closed = any(edit.rule == "add_closer" for edit in way.edits)
    if (
        closed
        and behind.strip(SPACE)
        and turn.text.strip(SPACE).endswith(behind.strip(SPACE))
        and (re.search(r"[{}\[\])(=:]", behind) or not re.match(r"\s+[^\W\d_]", behind))
    ):
        return True  # the rest of a call that was closed too early: all but words of their own
    if any(piece in text for piece in inner for text in (*cut, turn.text)):
        return True
    keys = frozenset(key for tool in toolset.tools for key in tool.keys)
    argument = _arguments(toolset.names, keys)
    signs = [tag for tag in wire_format.tags if tag[0] in "|;=:,<>{}[]()*"]
    return any(
        begun_length(text.rstrip(SPACE), signs) or argument.search(text)
        for text in (*cut, turn.text, *dropped, behind)
    )


class _Part(NamedTuple):
    """A key or a scalar of a value."""

    said: Any
    is_key: bool


def _parts(value: Any) -> Iterator[_Part]:
    match value:
        case Mapping():
            for key, inner in value.items():
                yield _Part(key, True)
                yield from _parts(inner)
        case list():
            for inner in value:
                yield from _parts(inner)
        case _:
            yield _Part(value, False)


def _strings(value: Any) -> Iterator[str]:
    """The keys and the strings of a value."""
    return (part.said for part in _parts(value) if isinstance(part.said, str))


def _sank(call: Call, tool: Tool) -> bool:
    """Whether an object inside the arguments has one of them: it was not closed in time."""
    inner = (value for value in call.arguments.values() if isinstance(value, dict | list))
    own = tool.parameters.get("properties", {})
    return any(part.is_key and part.said in own for value in inner for part in _parts(value))


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


@lru_cache(maxsize=256)
def _arguments(names: tuple[str, ...], keys: frozenset[str]) -> re.Pattern[str]:
    """What reads as an argument or a call: its name beside a sign, a field of JSON, a tag."""
    known = "|".join(map(re.escape, sorted(keys))) or "(?!)"
    called = "|".join(map(re.escape, sorted(names))) or "(?!)"
    return re.compile(
        rf"(?<![\w.])(?:{known})(?:[\"']?\s?[:=]|,\S|[\"'])|(?<![\w.])(?:{called})[({{\[\"']"
        r"|[\"']\w+[\"']\s*[:=]|<\w[\w:]*[ =]"
    )


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
