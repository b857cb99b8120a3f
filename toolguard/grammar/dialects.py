"""Dialects: how a wire format writes values.

The terminals come from the grammar files that the parser reads values with.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

from ..formats.nodes import (
    EMPTY,
    Alt,
    Control,
    Key,
    Literal,
    Node,
    Pattern,
    Raw,
    Scalar,
    Seq,
    Strings,
    Taken,
    optional,
)
from ..formats.reader import CDATA, delimited
from ..formats.render import python_text
from ..formats.wire_format import library
from .automaton import shortest_end, times
from .engine import refusal
from .raw_strings import ANY, stopped

_LENGTHS = frozenset({"minLength", "maxLength"})

_HEX = "[0-9a-fA-F]"
_PAIR = rf"u[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}"
_BEYOND = rf"u([1-9a-ce-fA-CE-F]{_HEX}{{3}}|[dD][0-7]{_HEX}{{2}})|{_PAIR}"
"""An escape of one character beyond the first 4,096: half of a pair is none."""
ESCAPE = rf"u0{_HEX}{{3}}|{_BEYOND}"
"""An escape of one character in four digits, or of a pair."""
_JSON_CHARACTER = rf'([^"\\\x00-\x1f]|\\(["\\/bfnrt]|{ESCAPE}))'
"""One character of a JSON string, however it is spelled."""


class RefusedError(Exception):
    """What a dialect cannot say, a constraint on a string or a name; the message says why."""


class Dialect(ABC):
    """How scalars and keys are written, as nodes, and objects and arrays, as JSON has them."""

    true: ClassVar[str] = "true"
    false: ClassVar[str] = "false"
    null: ClassVar[str] = "null"
    counted_in_part: ClassVar[frozenset[str]] = frozenset()
    """The bounds of a string that a mask keeps only up to what may begin its end."""
    escapes: ClassVar[bool] = False
    """Whether the characters of a string can be escaped."""

    def __init__(self) -> None:
        rules = library("json")
        self.number, self.integer = _pattern(rules["NUMBER"]), _pattern(rules["INTEGER"])
        self.colon: Node = rules["COLON"]
        self.comma: Node = rules["COMMA"]
        self.space: Node = optional(rules["WS"])

    @abstractmethod
    def text(self, value: str) -> Node:
        """Exactly this string, in all its usual spellings."""

    @abstractmethod
    def string(self, bounds: Mapping[str, Any]) -> Node:
        """A string under `minLength`, `maxLength` and `pattern`.

        Raises:
            RefusedError: it cannot be said.
        """

    def within(self, taken: Callable[[str], Taken | None]) -> Dialect:
        """The same in a call where no string is `taken`, by what ends it: of those that end it
        themselves, where no markup of the format does."""
        return self

    def key(self, name: str) -> Node:
        """The key of a member."""
        return self.text(name)

    def other_key(self, known: frozenset[str]) -> Node:
        """Any key but these."""
        return Key(known)

    def scalar(self, value: Node) -> Node:
        """A string, a number or a constant, where it stands for itself."""
        return value

    def object(self, inside: Node, or_none: bool = False) -> Node:
        """An object of these members, or of none."""
        return Seq((Literal("{"), self.space, *self._inside(inside, or_none), Literal("}")))

    def member(self, key: str, value: Node) -> Node:
        """A member of that name.

        Raises:
            RefusedError: the name cannot be written.
        """
        return Seq((self.key(key), self.colon, value))

    def other_member(self, known: frozenset[str], value: Node) -> Node:
        """A member of any other name."""
        return Seq((self.other_key(known), self.colon, value))

    def array(self, inside: Node, or_none: bool = False) -> Node:
        """An array of these items, or of none."""
        return Seq((Literal("["), self.space, *self._inside(inside, or_none), Literal("]")))

    def item(self, value: Node) -> Node:
        """An item of an array."""
        return value

    def _inside(self, inside: Node, or_none: bool) -> tuple[Node, ...]:
        if inside == EMPTY:
            return ()
        return (optional(Seq((inside, self.space))),) if or_none else (inside, self.space)


class JsonDialect(Dialect):
    """RFC 8259."""

    escapes = True

    def text(self, value: str) -> Node:
        plain = [json.dumps(value, ensure_ascii=ascii) for ascii in (False, True)]
        usual = dict.fromkeys([*plain, *(text.replace("/", "\\/") for text in plain)])
        options = tuple(map(Literal, usual))
        return options[0] if len(options) == 1 else Alt(options)

    def other_key(self, known: frozenset[str]) -> Node:
        return Key(known, escape=_escape(known, r"[\"\\/bfnrt]"))

    def string(self, bounds: Mapping[str, Any]) -> Node:
        if not bounds:
            return library("json")["STRING"]
        if "pattern" not in bounds:
            content = f'"{_content(bounds, _JSON_CHARACTER)}"'
            return Pattern(content, strings=_strings(bounds), quote='"')
        schema = json.dumps({"type": "string", **bounds})
        if reason := refusal(f"%json {schema}"):
            raise RefusedError(reason.splitlines()[0])
        return Scalar(schema, _strings(bounds))


class PythonDialect(Dialect):
    """Python literals: strings in either quotes; where JSON is read too, with its `\\/`."""

    true, false, null = "True", "False", "None"
    escapes = True

    def __init__(self, json_too: bool = False) -> None:
        super().__init__()
        self.signs = r"\\'\"abfnrtv" + "/" * json_too

    def text(self, value: str) -> Node:
        plain = [python_text(value, quote) for quote in ("'", '"')]
        slashed = [text.replace("/", "\\/") for text in plain if "/" in self.signs]
        return Alt(tuple(map(Literal, dict.fromkeys([*plain, *slashed]))))

    def string(self, bounds: Mapping[str, Any]) -> Node:
        strings = _strings(bounds)
        if strings.pattern is not None:
            # The engine tells a pattern from escapes between double quotes alone, as in JSON.
            plain = _content(bounds, r"[^'\\\x00-\x1f]")
            plainly = Pattern(f"'{plain}'", f"'({strings.pattern})'", strings=strings, quote="'")
            return Alt((plainly, JsonDialect().string(bounds)))
        escape = rf"\\([{self.signs}]|x{_HEX}{{2}}|{ESCAPE})"
        options = []
        for quote in ("'", '"'):
            unit = rf"([^{quote}\\\x00-\x1f]|{escape})"
            content = quote + _content(bounds, unit) + quote
            options.append(Pattern(content, strings=strings, quote=quote))
        return Alt(tuple(options))

    def other_key(self, known: frozenset[str]) -> Node:
        escape = _escape(known, f"[{self.signs}]", "x")
        return Alt((Key(known, "'", escape=escape), Key(known, '"', escape=escape)))


class GemmaDialect(Dialect):
    """Gemma: bare keys, or between the quote tokens that strings stand between."""

    counted_in_part = _LENGTHS

    def __init__(self, quote: Node) -> None:
        super().__init__()
        rules = library("gemma")
        key, self.colon = rules["BARE"], rules["KEY_END"]
        assert isinstance(quote, Control)
        assert isinstance(key, Pattern)
        self.quote, self.bare = quote, key.regex

    def text(self, value: str) -> Node:
        return Seq((self.quote, Literal(value), self.quote))

    def string(self, bounds: Mapping[str, Any]) -> Node:
        return Seq((self.quote, stopped(_raw(bounds), self.quote, None)))

    def key(self, name: str) -> Node:
        if not re.fullmatch(self.bare, name):
            raise RefusedError(unwritable(name))
        return self.bare_or_quoted(Literal(name))

    def other_key(self, known: frozenset[str]) -> Node:
        return self.bare_or_quoted(Key(known, "", self.bare))

    def bare_or_quoted(self, key: Node) -> Node:
        return Alt((key, Seq((self.quote, key, self.quote))))


class ElementsDialect(Dialect):
    """MiniMax M3: an element for each member and item, every tag led by one token.

    A value is written with the token that leads the tag after it, which ends its text. A grammar
    cannot hold a closing tag to a name that it does not know: that of an undeclared member may name
    any other undeclared one, and the parser takes it so.
    """

    counted_in_part = _LENGTHS

    def __init__(self) -> None:
        super().__init__()
        rules = library("elements")
        lead, name = rules["LEAD"], rules["ELEMENT"]
        assert isinstance(lead, Control)
        assert isinstance(name, Pattern)
        self.lead, self.name = lead, name.regex
        self.comma = self.space = EMPTY

    def text(self, value: str) -> Node:
        return Literal(value)

    def string(self, bounds: Mapping[str, Any]) -> Node:
        return Seq((stopped(_raw(bounds), self.lead, None),))

    def scalar(self, value: Node) -> Node:
        if isinstance(value, Seq):  # a string, which has its markup
            return value
        return Seq((value, self.lead))

    def object(self, inside: Node, or_none: bool = False) -> Node:
        return Seq((self.lead, optional(inside) if or_none else inside))

    array = object

    def member(self, key: str, value: Node) -> Node:
        if not re.fullmatch(self.name, key):
            raise RefusedError(unwritable(key))
        opening, closing = f"<{key}>", f"</{key}>"
        inner = _but_once(value, opening, closing)
        return Seq((Literal(opening), inner, Literal(closing), self.lead))

    def other_member(self, known: frozenset[str], value: Node) -> Node:
        tags = (Key(known, "", self.name, left, ">") for left in ("<", "</"))
        return Seq((next(tags), value, next(tags), self.lead))

    def item(self, value: Node) -> Node:
        return self.member("item", value)


def _but_once(value: Node, opening: str, closing: str) -> Node:
    """A value; if it is any string, one that does not open its element again, or closes that."""
    match value:
        case Alt(options):
            return Alt(tuple(_but_once(option, opening, closing) for option in options))
        case Seq((Seq((Raw(strings=None) as raw, stop)),)):
            again = rf"{re.escape(opening)}{ANY}*{re.escape(closing)}{ANY}*"
            once = replace(raw, taken=Taken("", (), (opening,)))
            strings = Strings(again, least=opening + closing)
            options = once, replace(raw, regex=again, strings=strings)
            return Seq((Alt(tuple(Seq((option, stop)) for option in options)),))
        case _:
            return value


class TypedDialect(Dialect):
    """Cohere's elements: the type of a value is an attribute, a closing tag ends it."""

    end: ClassVar[str] = "</cofl:value>"

    counted_in_part = _LENGTHS

    def __init__(self) -> None:
        super().__init__()
        name = library("cofl")["MEMBER"]
        assert isinstance(name, Pattern)
        self.name = name.regex
        self.comma = EMPTY
        self.taken: Taken | None = None

    def within(self, taken: Callable[[str], Taken | None]) -> TypedDialect:
        other = copy(self)
        other.taken = taken(self.end)
        return other

    def text(self, value: str) -> Node:
        return Seq((Literal('raw">'), Literal(value + self.end)))

    def string(self, bounds: Mapping[str, Any]) -> Node:
        return Seq((Literal('raw">'), stopped(_raw(bounds), Literal(self.end), self.taken)))

    def scalar(self, value: Node) -> Node:
        if isinstance(value, Seq):  # a string, which has its markup
            return value
        return Seq((Literal('json">'), self.space, value, self.space, Literal(self.end)))

    def object(self, inside: Node, or_none: bool = False) -> Node:
        return self._of("dict", optional(inside) if or_none else inside)

    def array(self, inside: Node, or_none: bool = False) -> Node:
        return self._of("list", optional(inside) if or_none else inside)

    def _of(self, kind: str, inside: Node) -> Node:
        return Seq((Literal(f'{kind}">'), inside, Literal(self.end)))

    def member(self, key: str, value: Node) -> Node:
        if not re.fullmatch(self.name, key):
            raise RefusedError(unwritable(key))
        return Seq((Literal(f'<cofl:value name="{key}" type="'), value))

    def other_member(self, known: frozenset[str], value: Node) -> Node:
        return Seq((Key(known, "", self.name, '<cofl:value name="', '" type="'), value))

    def item(self, value: Node) -> Node:
        return Seq((Literal('<cofl:value type="'), value))


class RawDialect(Dialect):
    """A string as it is, up to the markup that ends it; `lined` allows a line end on either side
    that does not count. It does not begin with `barred`."""

    counted_in_part = _LENGTHS

    def __init__(self, lined: bool = False, barred: str = "") -> None:
        super().__init__()
        self.lined, self.barred = lined, barred

    def text(self, value: str) -> Node:
        line = optional(Literal("\n"))
        return Seq((line, Literal(value), line)) if self.lined else Literal(value)

    def string(self, bounds: Mapping[str, Any]) -> Node:
        raw = replace(_raw(bounds), barred=self.barred, lined=self.lined)
        if self.lined and raw.also is not None:
            return replace(raw, also=rf"\n?({raw.also})\n?")
        return raw


def _escape(known: frozenset[str], signs: str, byte: str = "") -> str:
    """An escape in a key that is none of those known: only what none of them could be spelled with.

    Args:
        signs: what may stand behind the backslash for itself.
        byte: what stands before two digits.
    """
    if not all(map(_PLAIN.fullmatch, known)):
        return ""
    two, low = f"{_HEX}{{2}}", f"{_HEX}{{3}}"
    if known:  # none of ASCII
        two, low = f"[89a-fA-F]{_HEX}", f"(0[89a-fA-F]|[1-9a-fA-F]{_HEX}){_HEX}"
    return rf"\\({signs}|u0{low}|{_BEYOND}" + (f"|{byte}{two})" if byte else ")")


_PLAIN = re.compile(r"[ !#-&(-.0-\[\]-~]*")
"""A text that is escaped nowhere."""


def unwritable(key: str) -> str:
    """Why an argument is left out whose name could not be told from what is around it."""
    return (
        f"the format cannot write {key!r} as the name of an argument, so no call has it (letters, "
        "digits and any of _ . $ @ - can be written everywhere)"
    )


def _pattern(node: Node) -> Pattern:
    assert isinstance(node, Pattern)
    return node


MOST_TIMES = 30
"""How often a pattern may repeat something where the mask looks for a string's end as well."""


def _raw(bounds: Mapping[str, Any]) -> Raw:
    """A string without quotes under these bounds; beside a pattern, its length is not counted.

    Raises:
        RefusedError: its pattern cannot be said.
    """
    if not bounds:
        return Raw(f"{ANY}*")
    strings = _strings(bounds)
    if strings.pattern is not None and times(strings.pattern) > MOST_TIMES:
        raise RefusedError("it is too large for a string without quotes")
    return Raw(f"{ANY}*", strings.pattern, strings=strings)


def _content(bounds: Mapping[str, Any], unit: str) -> str:
    """The regular expression of a string's content, `unit` being one character of it."""
    return unit + _times(bounds.get("minLength", 0), bounds.get("maxLength"))


def _times(low: int, high: int | None) -> str:
    return "*" if low == 0 and high is None else f"{{{low},{'' if high is None else high}}}"


def _strings(bounds: Mapping[str, Any]) -> Strings:
    """The strings that a schema's bounds leave.

    Raises:
        RefusedError: none is found, so that no turn could be completed.
    """
    strings = Strings(_searched(bounds), bounds.get("minLength", 0), bounds.get("maxLength"))
    if shortest_end(strings) is None:
        raise RefusedError("no string was found that satisfies it")
    return strings


def _searched(bounds: Mapping[str, Any]) -> str | None:
    """The schema's `pattern`, which may stand anywhere in a string, as one of the whole string."""
    if "pattern" not in bounds:
        return None
    whole = "|".join(map(_whole, _options(bounds["pattern"])))
    if reason := refusal(delimited(whole)):
        raise RefusedError(reason.splitlines()[0])
    return whole


def _options(pattern: str) -> list[str]:
    """The options of a pattern that stand in no group."""
    options, depth = [""], 0
    for part in re.findall(r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*\]|[\s\S]", pattern):
        depth += (part == "(") - (part == ")")
        if part == "|" and not depth:
            options.append("")
        else:
            options[-1] += part
    return options


def _whole(option: str) -> str:
    """One option of a pattern, as one of the whole string."""
    inner = option.removeprefix("^").removesuffix("$")
    bare = re.sub(r"\\.|\[(\\.|[^\]])*\]", "", inner)
    if re.search(r"[$^]|\(\?[^:]", bare):
        raise RefusedError("its pattern has anchors or groups that a mask cannot take apart")
    before = "" if option.startswith("^") else f"{ANY}*"
    after = "" if option.endswith("$") and not option.endswith(r"\$") else f"{ANY}*"
    return f"{before}({inner}){after}"


_ALL = frozenset(("null", "integer", "number", "boolean", "object", "array", "string"))
_STRING = frozenset({"string"})
_OTHERS = _ALL - _STRING
_NUMBERS = frozenset(("integer", "number"))


@cache
def value_dialects() -> Mapping[str, tuple[tuple[Dialect, frozenset[str]], ...]]:
    """The slots of single values: the dialects that they may be written in, and the types that each
    of them may write there. They read grammar files, so they are made when they are first asked
    for."""
    return {
        "PYTHON": ((PythonDialect(), _ALL),),
        "LITERAL": ((PythonDialect(json_too=True), _ALL), (JsonDialect(), _OTHERS - _NUMBERS)),
        "VALUE": (
            (RawDialect(), _STRING),
            (JsonDialect(), _OTHERS),
            (PythonDialect(json_too=True), _OTHERS - _NUMBERS),
        ),
        "LINES": (
            (RawDialect(lined=True), _STRING),
            (JsonDialect(), _OTHERS),
            (PythonDialect(json_too=True), _OTHERS - _NUMBERS),
        ),
        "TYPED": ((TypedDialect(), _ALL),),
        "CDATA": (
            (RawDialect(barred=CDATA[0]), _STRING),
            (JsonDialect(), _OTHERS),
            (PythonDialect(json_too=True), _OTHERS - _NUMBERS),
        ),
        "STRING": ((RawDialect(), _STRING),),
        "OTHER": ((JsonDialect(), _OTHERS),),
        "NUMBER": ((JsonDialect(), _NUMBERS),),
        "BOOLEAN": ((JsonDialect(), frozenset({"boolean"})),),
        "OBJECT": ((JsonDialect(), frozenset({"object"})),),
        "ARRAY": ((JsonDialect(), frozenset({"array"})),),
        "NULL": ((JsonDialect(), frozenset({"null"})),),
    }
