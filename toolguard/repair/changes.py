"""What may be changed where a parser stumbles: structure, never a name, a key or a value.

Each function knows one kind of damage, and proposes changes for a place where the format's parser
cannot follow. What the parser would accept there decides whether one helps.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from functools import cache, partial
from typing import Any

from lark import UnexpectedInput
from lark.lexer import Token

from ..formats.reader import SPACE, Reader
from ..formats.wire_format import WireFormat
from ..parsing.faults import BRACKETS, CALL_ID, call_id, holds_names
from ..parsing.literals import checked, read_literal
from ..parsing.parser import after
from ..parsing.vocabulary import CURLY, HEADER, SENTINEL, SPEAKER, other_speaker
from ..tools.toolset import Toolset
from .evidence import QUOTES
from .search import Change, Stumble

HEAD = re.compile(
    rf"\s{{0,16}}(?:[!?.>]?\s{{0,16}}{HEADER}[ \t]{{0,16}}(?:\n\s{{0,16}}|(?=[{{\[<])))+"
)
"""Role headers at the head of a turn."""
_CUT: dict[str | None, str] = {"fabricated_response": "cut_response", "run_on": "cut_run_on"}
_VALUES = ("true", "false", "null", "none")
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_FIELDS = {
    '"name"': ("name", "function", "tool", "tool_name", "function_name"),
    '"arguments"': ("parameters", "args", "arguments", "params", "input", "kwargs"),
    '"parameters"': ("parameters", "arguments", "args", "params", "input", "kwargs"),
}
IN_PYTHON = re.compile(r"[{\[,:]\s{0,16}'")
"""A string in quotes that JSON does not have: the constants beside it are Python's, too."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_FIELD = re.compile(r"""["'\u2018\u201c](\w+)["'\u2019\u201d]""")
_QUOTE = re.compile(r"[\"']")
_WORD = re.compile(r"[^\W\d][\w-]*")
_BODY = re.compile(r"\s{0,16}(?=[{\[])")
_ROLE_BEFORE_CALL = re.compile(rf"{HEADER}(?=[\s{{<\[]|$)\s*")
_PAIR = re.compile(r"(\w+)\s?[=:]\s?")
_BARE_VALUE = re.compile(r"-?\d+(\.\d+)?|true|false|null")
_AFTER_WORD = re.compile(r"\s*[:=,}\]]")
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPES = frozenset("'\"\\/bfnrtu")
_PREFIX = re.compile(
    r"[fru](?=(?:\"[^\"\\{}\n]*\"|'[^'\\{}\n]*')\s*(?:[,:}\])]|\Z))", re.IGNORECASE
)
"""In front of a string that is the same without it."""
_MARKDOWN = re.compile(r"\w*(?:\\_\w*)+")
"""A word with escapes, as Markdown has it."""
_BEFORE_NAME = re.compile(r"[\"']|</?")
_END_OF_NAME = re.compile(r"[\w\\]*\Z")
_BEFORE_COLON = re.compile(r"[\"']\s?:")
_AFTER_FIELD = re.compile(r"[\"'](?:name|function)[\"']\s?:\s?\Z")
_UNESCAPED = re.compile(r"[\x00-\x1f]")
_KEPT = "\"',:{[(<.-+_"
"""What is never left out alone: something may have been meant to stand beside it."""
_NOTHING = re.compile(r"(?:null|None)(?!\w)")
_PIECE = re.compile(r"""'(?:[^'\\]|\\.)*(?:'|\Z)|"(?:[^"\\]|\\.)*(?:"|\Z)|[\[\]{}]""", re.DOTALL)
_HEADING = 200  # how soon the body of a call has to say its name
_NAME = 64  # how long a name may be
_TAIL = 32  # how many characters the brackets at the end of a call may take
_TAG = re.compile(r"<[^<>\n]{1,48}>")
_ACROSS = re.compile(r'"\s*[:,=}\]]|[:,=\[{]\s*"')
"""Between two strings: what holds this is not one."""
_STRUCTURE = "=:;,(){}[]<>|"
_SEPARATORS = ":=,;)]}>"
_CLOSED_BY = {"{": "}", "[": "]"}


class Changes:
    """Proposes changes for a format and the tools that were offered."""

    def __init__(self, wire_format: WireFormat, toolset: Toolset) -> None:
        self.format = wire_format
        self.reader: Reader = wire_format.reader
        self.toolset, self.names = toolset, toolset.names
        self.keys = {
            key for name in toolset.names for key in toolset[name].parameters.get("properties", {})
        }
        self._named = re.compile(rf"(?<!\w)(?:{_any_of(self.names).pattern})(?!\w)")
        self._words = self.keys.union(self.names)
        self._markup, self._controls = _markup(wire_format), _controls(wire_format)
        called = any(piece.strip(SPACE) == ")" for piece in self.reader.written.values())
        self._closing = partial(_closing_quote, called=called)
        names = self.reader.keys.names(self.keys, any(tool.is_open for tool in toolset))
        self._heads = re.compile(self.reader.heads.inside(names) or "(?!)")

    def is_wrong(self, token: Token) -> bool:
        """Whether a value lost what ends it, and took in the next argument or call; or a key has
        the escapes of Markdown."""
        if token.type in self.reader.values:
            return self._heads.search(token) is not None
        return "\\_" in token and token.strip("</>").replace("\\_", "_") in self.keys

    def __call__(self, stumble: Stumble) -> Iterator[Change]:
        expected = stumble.expected
        # Put in on both sides, brackets make an object that nobody wrote; in JSON, the arguments.
        edits = () if self.format.is_json else stumble.way.edits
        made_up = {_CLOSED_BY[edit.after] for edit in edits if edit.after in _CLOSED_BY}
        written = {
            self.reader.written[name]: name
            for name in expected
            if name in self.reader.written and self.reader.written[name] not in made_up
        }
        if self._is_over(stumble, expected):
            yield from self._rest(stumble)
        else:
            yield from self._insertions(stumble, written)
            if stumble.place < len(stumble.way.text):
                yield from self._replacements(stumble, written, expected)
                yield from self._deletions(stumble)
        yield from self._before(stumble, written)

    # After the calls

    def _is_over(self, stumble: Stumble, expected: Sequence[str]) -> bool:
        """Whether the turn could end here, and text stands there that is no part of a call."""
        if "$END" not in stumble.state.parse_conf.states[stumble.state.position]:
            return False
        prose = bool(stumble.tokens) and stumble.tokens[0][0].type in ("FREE", "THOUGHT")
        return 0 < stumble.place < len(stumble.way.text) and not prose

    def _rest(self, stumble: Stumble) -> Iterator[Change]:
        """What follows the calls: another speaker is cut; text gives way to a further call."""
        text, place = stumble.way.text, stumble.place
        rest = text[place:]
        speaker = SPEAKER.search(rest)
        own = rest[: speaker.start()] if speaker else rest
        if self.format.opener and self.toolset.any_named(own[:_HEADING]):
            body = _BODY.match(own)
            if body:
                yield Change(
                    place + body.end(), place + body.end(), self.format.opener, "add_opener"
                )
        added = stumble.way.insertions and place == stumble.way.done
        if added and not (speaker and not own.strip(SPACE)):
            return  # the call was not closed by the model, so this may be a part of it
        # What holds markup is the rest of a call, no text.
        remains = not self.format.is_json and any(
            piece in own for piece in (*self.format.markup, *self.format.inner)
        )
        if not (remains or self.toolset.any_named(own)):
            rule = _CUT.get(other_speaker(rest[len(own) :] if speaker else rest), "cut_text")
            if rule == "cut_text" and not self._controls.sub("", own).strip(SPACE):
                rule = "cut_controls"
            yield Change(place, len(text), "", rule)
        elif self.format.opener:
            following = own.find(self.format.opener)
            if following > 0:
                yield Change(place, place + following, "", "cut_text")
            stray = self._controls.match(own)
            if stray:
                yield Change(place, place + stray.end(), "", "drop_control")

    # What is missing

    def _insertions(self, stumble: Stumble, written: dict[str, str]) -> Iterator[Change]:
        place = stumble.place
        closing = [part.text for part in self.format.reasoning.closing[:1]]
        thinks = "THOUGHT" in (*stumble.expected, *(token.type for token, _ in stumble.tokens[:1]))
        for piece, name in written.items():
            # What was thought is not what was said, and a value is not ours to give.
            if (thinks and piece in closing) or piece.lower() in _VALUES:
                continue
            try:
                after(stumble.state, Token(name, piece))
            except UnexpectedInput:
                continue
            closes = piece in self.format.controls or piece.strip(SPACE) in ("}", "]", ")")
            yield Change(place, place, piece, "add_closer" if closes else "add_structure")

    # What stands in its place

    def _replacements(
        self, stumble: Stumble, written: dict[str, str], expected: Sequence[str]
    ) -> Iterator[Change]:
        text, place = stumble.way.text, stumble.place
        char = text[place]
        if char in _STRUCTURE:
            end = place + 1
            for piece in written:
                sign = piece.strip(SPACE)
                if len(sign) == 1 and sign != char and sign in _meant_by(char):
                    rule = {"=": "equals_to_colon", ")": "bracket_kind", "]": "bracket_kind"}
                    yield Change(place, end, sign, rule.get(char, "wrong_sign"))
        yield from self._names(text, place)
        yield from self._fields(text, place, written)
        yield from self._ids(stumble, written)
        yield from self._tags(text, place, written)
        strings = self.reader.strings.intersection(expected)
        if (strings or '"' in written) and _PREFIX.match(text, place):
            yield Change(place, place + 1, "", "drop_prefix")
        if strings or '"' in written:
            yield from self._strings(text, place, bool(strings))
        word = _WORD.match(text, place)
        if word and word[0] in _CONSTANTS and _CONSTANTS[word[0]] in written:
            yield Change(place, word.end(), _CONSTANTS[word[0]], "python_constant")
        if char == '"' and "{" in written:
            yield from self._unwrapped(text, place)
        if self.format.is_json:
            yield from self._python(text, place)
            yield from self._without_arguments(text, place, written)
        yield from self._values(text, place, expected)

    def _python(self, text: str, place: int) -> Iterator[Change]:
        """An object or a list as Python writes it, whole."""
        start = len(text[:place].rstrip(SPACE)) - 1
        end = _closed(text, start) if start >= 0 and text[start] in _CLOSED_BY else None
        own = _escaped(text[start:end]) if end else None
        if end and own is not None and IN_PYTHON.search(own):
            with suppress(ValueError):
                value = read_literal(checked(own), False)
                yield Change(start, end, _quoted(value), "python_literal")

    def _without_arguments(
        self, text: str, place: int, written: dict[str, str]
    ) -> Iterator[Change]:
        """Nothing for the arguments of a tool that has none."""
        nothing = _NOTHING.match(text, place)
        if nothing and "{" in written:
            *_, named = ("", *self._named.findall(text, 0, place))
            if named and not self.toolset[named].parameters.get("properties"):
                yield Change(place, nothing.end(), "{}", "no_arguments")

    def _names(self, text: str, place: int) -> Iterator[Change]:
        """A name or a key with the escapes of Markdown."""
        quoted = text[place] in "\"'"
        before = text[max(0, place - _NAME) : place]
        start = place - len(_END_OF_NAME.findall(before)[0])
        if sign := _BEFORE_NAME.match(text, place):
            start = sign.end()
        word = _MARKDOWN.match(text, start)
        if word and word[0].replace("\\_", "_") in self._words:
            is_key = _BEFORE_COLON.match(text, word.end()) or _AFTER_FIELD.search(before)
            if is_key or not quoted:
                yield Change(start, word.end(), word[0].replace("\\_", "_"), "unescape_name")

    def _ids(self, stumble: Stumble, written: dict[str, str]) -> Iterator[Change]:
        """The id of a call that is its name and its number, as `functions.f:0` in Kimi K2."""
        named = stumble.tokens[0][0] if stumble.tokens else None
        if not holds_names(self.format) or ":" not in written:
            return
        if named is None or named.type != self.reader.tool or named.start_pos is None:
            return
        text, place, start = stumble.way.text, stumble.place, named.start_pos
        found = call_id(self.names).match(text, start)
        if found and found.end() == place:
            number = found[2] or text.count(CALL_ID, 0, start - len(CALL_ID))
            prefix = "" if text.endswith(CALL_ID, 0, start) else CALL_ID
            yield Change(start, place, f"{prefix}{found[1]}:{number}", "restore_id")

    def _fields(self, text: str, place: int, written: dict[str, str]) -> Iterator[Change]:
        """A field of the format in another word, or between other quotes."""
        string = _FIELD.match(text, place)
        for field, others in _FIELDS.items():
            if string and field in written and string[1] in others:
                yield Change(place, string.end(), field, "rename_field")

    def _tags(self, text: str, place: int, written: dict[str, str]) -> Iterator[Change]:
        """A tag that lost its bracket, or that is nearly the one expected."""
        tag = _TAG.match(text, place)
        for piece in written:
            if len(piece) < 4:
                continue
            for lost in (1, 2):
                if piece[0] == "<" and text.startswith(piece[lost:], place):
                    yield Change(place, place + len(piece) - lost, piece, "restore_bracket")
            like = tag and piece[0] == "<" and piece.endswith(">") and tag[0] != piece
            if tag and like and SequenceMatcher(None, tag[0], piece).ratio() >= 0.75:
                yield Change(place, tag.end(), piece, "restore_tag")

    def _strings(self, text: str, place: int, whole: bool) -> Iterator[Change]:
        """A string with other quotes, with none, or that JSON does not take."""
        char = text[place]
        if not whole and (char in CURLY or char == "'"):
            yield Change(place, place + 1, '"', "straight_quote")
        elif char in CURLY:
            closing = self._closing(f'{CURLY[char]}"').search(text, place + 1)
            if closing and "\n" not in text[place : closing.start()]:
                inner = text[place + 1 : closing.start()]
                yield Change(place, closing.start() + 1, _quoted(inner), "straight_quotes")
                if "\\" not in inner:
                    yield from self._pair(inner, place, closing.start() + 1)
        elif char == "'":
            closing = self._closing("'").search(text, place + 1)
            own = _escaped(text[place + 1 : closing.start()]) if closing else None
            if closing and own is not None:
                try:
                    value = ast.literal_eval(f"'{own}'")
                except (SyntaxError, ValueError):
                    return
                yield Change(place, closing.start() + 1, _quoted(value), "straight_quotes")
        elif char == '"' and whole:
            yield from self._unclosed(text, place)
        elif whole and (word := _WORD.match(text, place)):
            quote = _QUOTE.search(text, word.end())
            if quote and (quote.start() == word.end() or text[word.end()] == " "):
                yield Change(place, place, quote[0], "add_quote")
            if _AFTER_WORD.match(text, word.end()):
                yield Change(place, word.end(), f'"{word[0]}"', "quote_word")

    def _unclosed(self, text: str, place: int) -> Iterator[Change]:
        """A string that holds what JSON does not take, or that is never closed."""
        end = self._closing('"').search(text, place + 1)
        if end:
            inner = text[place + 1 : end.start()]
            fixed = _escaped(inner)
            if fixed is None:
                return
            fixed = _ESCAPE.sub(lambda escape: escape[0].replace("\\'", "'"), fixed)
            rule = "fix_escape" if fixed != inner else "escape_control"
            fixed = _UNESCAPED.sub(lambda m: json.dumps(m[0])[1:-1], fixed)
            if fixed != inner:
                yield Change(place + 1, end.start(), fixed, rule)
        stop = self._controls.search(text, place)
        line = text.find("\n", place)
        ends = [at for at in (stop.start() if stop else -1, line) if at > 0]
        until = min(ends, default=len(text))
        yield from _closings(text, place + 1, until)

    def _unwrapped(self, text: str, place: int) -> Iterator[Change]:
        """An object that was encoded twice."""
        string = _STRING.match(text, place)
        if string:
            try:
                inner = json.loads(string[0], strict=False)
            except ValueError:
                return
            if inner.strip(SPACE)[:1] == "{":
                yield Change(place, string.end(), inner, "unwrap_double_encoding")

    def _values(self, text: str, place: int, expected: Sequence[str]) -> Iterator[Change]:
        """A value whose end is missing or damaged."""
        for name in expected:
            if name not in self.reader.values:
                continue
            stop = self.reader.values[name].stop
            end = text.find(stop, place)
            head = self._heads.search(text, place, end if end >= 0 else len(text))
            if head:
                yield from self._ends(text, place, head.start(), stop)
            if end >= 0:
                continue
            bare = stop.strip(SPACE)
            for lost in (2, 1):
                at = text.find(bare[lost:], place)
                if at >= 0 and len(bare) > 4:
                    yield Change(at, at + len(bare) - lost, bare, "restore_bracket")
                    break
            following = self._markup.search(text, place)
            if following:
                yield from self._ends(text, place, following.start(), stop)

    def _ends(self, text: str, place: int, at: int, stop: str) -> Iterator[Change]:
        """Where a value that begins at `place` may end, if what follows it begins at `at`: in front
        of the white space that templates write there; where they write none, nobody can say."""
        inside = len(text[place:at].rstrip(SPACE))
        habit = self.reader.heads.habit
        blank = text[place + inside : at]
        ends = {at - len(habit)} if habit and blank.endswith(habit) else {at, place + inside}
        for end in sorted(ends, reverse=True):
            yield Change(end, end, stop, "add_closer")

    # What has no business there

    def _deletions(self, stumble: Stumble) -> Iterator[Change]:
        text, place = stumble.way.text, stumble.place
        role = _ROLE_BEFORE_CALL.match(text, place)
        if role and role.end() > place:
            yield Change(place, role.end(), "", "drop_role")
        control = self._controls.match(text, place)
        if control and control.end() > place:
            yield Change(place, control.end(), "", "drop_control")
            word = _WORD.match(text, control.end())
            inner = self.reader.heads.paths and control[0] in self.format.inner
            if word and not inner and control[0] not in QUOTES:
                yield Change(place, word.end(), "", "drop_control")
        elif not ((text[place].isascii() and text[place].isalnum()) or text[place] in _KEPT):
            yield Change(place, place + 1, "", "drop_stray")

    def _pair(self, inner: str, start: int, end: int) -> Iterator[Change]:
        """A key and its value in one string."""
        pair = _PAIR.match(inner)
        if pair and pair[1] in self.keys:
            value = inner[pair.end() :]
            if value[:1] in QUOTES or value[-1:] in QUOTES:
                if value[0] != value[-1] or value[0] in value[1:-1]:
                    return
                value = value[1:-1]
            if _is_torn(value):
                return
            yield Change(start, end, f"{_quoted(pair[1])}: {_quoted(value)}", "split_pair")
            if _BARE_VALUE.fullmatch(value):
                yield Change(start, end, f"{_quoted(pair[1])}: {value}", "split_pair")

    # What was taken wrongly before

    def _before(self, stumble: Stumble, written: dict[str, str]) -> Iterator[Change]:
        if not stumble.tokens:
            return
        text, place = stumble.way.text, stumble.place
        token = stumble.tokens[0][0]
        start, end = token.start_pos or 0, token.end_pos or 0
        for opener, _ in stumble.tokens:
            rest = text[opener.end_pos :]
            if opener in self.format.controls and len(rest) < 64 and not rest.strip(SPACE):
                yield Change(opener.start_pos or 0, len(text), "", "cut_controls")
        if token.strip(SPACE) == "," and text[place : place + 1] in ("}", "]", ")"):
            yield Change(start, end, "", "drop_comma")
        # Escapes are of the pair, or of its value: nobody can tell.
        if token.type in self.reader.strings and "\\" not in token:
            with suppress(SyntaxError, ValueError):
                yield from self._pair(read_literal(token, True), start, end)
        if token.type in self.reader.strings and place < len(text):
            # It ended too early, at a quote that is a part of it, or too late, at the next one.
            closing = self._closing('"').search(text, end)
            if closing and "\n" not in text[end : closing.start()]:
                inner = text[end - 1 : closing.start()]
                if not _ACROSS.search(text[start + 1 : closing.end()]):
                    inner = inner.replace('\\"', '"').replace('"', '\\"')
                    yield Change(end - 1, closing.start(), inner, "escape_quotes")
            yield from _closings(text, start + 1, end - 1)
        if value := self.reader.values.get(token.type):
            following = self._markup.search(text, start)  # it took that in
            if following:
                yield from self._ends(text, start, following.start(), value.stop)
        if token.type == self.reader.tool:
            for name in self.names:
                if len(name) < len(token) and token.startswith(name):
                    for piece in written:
                        yield Change(start + len(name), start + len(name), piece, "add_structure")


def _is_torn(said: str) -> bool:
    """Whether a string begins or ends with a sign that is part of no pair: what was lost, maybe."""
    pairs = {**BRACKETS, "<": ">"}
    unpaired = {
        sign for one in pairs.items() if said.count(one[0]) != said.count(one[1]) for sign in one
    }
    unpaired |= {mark for mark in "\"'`" if said.count(mark) % 2}
    return said[:1] in {*unpaired, *"=:,;|>)]}"} or said[-1:] in {*unpaired, *"=|<([{"}


def _meant_by(char: str) -> str:
    """The signs that one may be written for: its like, and none that would begin a value."""
    return next((signs for signs in ("([{<", ")]}>", ":=") if char in signs), _SEPARATORS)


@cache
def _markup(wire_format: WireFormat) -> re.Pattern[str]:
    """What a format writes besides words, values and punctuation."""
    return _any_of({*wire_format.controls, *wire_format.reader.written.values()}, longer_than=3)


@cache
def _controls(wire_format: WireFormat) -> re.Pattern[str]:
    """The control tokens of a format, and what looks like one of another."""
    return re.compile(f"{_any_of(wire_format.controls).pattern}|{SENTINEL}")


@cache
def _closing_quote(signs: str, called: bool) -> re.Pattern[str]:
    """One of the signs, where what follows shows that a value ends; or a call in parentheses."""
    call_ends = r"|\)(?:\n|\s*[,\]<])" if called else ""
    return re.compile(rf"[{signs}]\s*(?:[,}}\]:]{call_ends}|\Z)")


def _any_of(texts: Iterable[str], longer_than: int = 0) -> re.Pattern[str]:
    """Any of some texts, the longest that is there."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(re.escape(text) for text in ordered if len(text) > longer_than))


def _closings(text: str, start: int, end: int) -> Iterator[Change]:
    """Where a string could have ended: in front of the brackets and the comma at its end."""
    tail = text[max(start, end - _TAIL) : end]
    inside = len(tail.rstrip(f"{SPACE}}}]),"))
    for at in range(end - len(tail) + inside, end):
        if text[at] not in SPACE:
            yield Change(at, at, '"', "add_quote")


def _escaped(inner: str) -> str | None:
    """A string where a backslash that begins no escape is one, as in a pattern; None where nobody
    can say: in `C:\\Dir\\new` what reads as a line end may be a name."""
    escapes = {*_ESCAPE.findall(inner)}
    if escapes <= _ESCAPES:
        return inner
    if escapes & {*_ESCAPES, "_"} - {'"'}:
        return None
    return _ESCAPE.sub(lambda escape: escape[0] if escape[1] == '"' else f"\\{escape[0]}", inner)


def _closed(text: str, start: int) -> int | None:
    """Where the bracket that stands there is closed, past the brackets and the strings inside."""
    depth = 0
    for piece in _PIECE.finditer(text, start):
        depth += (piece[0] in "{[") - (piece[0] in "}]")
        if depth == 0:
            return piece.end()
    return None


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
