"""The lark parser of a wire format: reads finished turns.

A turn is read as *marked text*: where a control token was sampled as one id, a marker character
stands in its place (a lone surrogate, which no decoded text can hold), so that a token and its
spelled-out twin are told apart, and a token inside a string is seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple, TypeAlias

from lark import Lark
from lark.common import LexerConf
from lark.exceptions import LexError
from lark.lexer import ContextualLexer, LexerState, LexerThread

from .heads import UNTIL, Heads, Names, heads_of
from .lines import closing as lined_closing
from .nodes import Alt, Control, Free, Literal, Node, Pattern, Ref, Repeat, Rules, Seq, Slot, walk

_MARK, _MENTION = 0xDC00, 0xDB00
MARKED = re.compile(r"[\udc00-\udcff]")
"""Any marker."""
STRAY = chr(_MARK + 0xFF)
"""The marker of a special token that the format does not know."""
_NOTHING = chr(_MENTION + 0xFF)

NAME_SIGNS = r"\w./-"
TOOL_NAME = f"[{NAME_SIGNS}]+(?:::[{NAME_SIGNS}]+){{0,2}}"
"""What a tool may be called: the characters of the Model Context Protocol, in any script, and
`ns::tool`, also twice."""

STARTS = ("start", "opened", "replying")
"""The rules that are a whole turn: all of it, and what is left where the prompt has opened the
reasoning, or a reply."""

CALLS = ("call", "another")
"""The rules that are one call: the further ones are `another` where the first opens otherwise."""

WORD = r"[\w.$@-]+"
OTHER_WORD = r"[A-Za-z0-9_.$@-]+"
"""What an argument may be called where nothing marks where its name ends; the same where it is not
declared, as a mask has it."""

MARKED_KEY = r'[^ <>{}"=,;\x00-\x1f]+( [^ <>{}"=,;\x00-\x1f]+)*'
"""What an argument may be called where markup follows its name: no signs of structure, which would
stand for what was lost or damaged."""

ATTRIBUTE = r'([^"&<\x00-\x1f]|&amp;|&quot;)+'
OTHER_ATTRIBUTE = r'[^"&<\x00-\x1f]+'
"""What it may be called between quotes that escape them, and as a mask has it."""

SPACE = " \t\r\n"
"""White space, to masks and to the parser alike; Python's own idea of it is wider (`\\x1c`)."""

LEADING_SPACE = 16
"""How much white space may stand before text or instead of it."""


def lexing(lexer: Any, text: str, at: int) -> LexerState:
    """How a lexer stands at a place in a text."""
    state = LexerThread.from_text(lexer, text).state
    assert state is not None
    state.line_ctr.char_pos = at
    return state


def marker(index: int) -> str:
    """The marker of the format's control token number `index`."""
    return chr(_MARK + index)


def mention(mark: str) -> str:
    """What stands for a control token that is a word of prose: text, to the parser."""
    return chr(ord(mark) - _MARK + _MENTION)


def words(text: str) -> str:
    """What stands for text that spells a control token as a word of prose, or a part of one: the
    parser sees no control token in it."""
    return "".join(char + _NOTHING for char in text)


Fixed: TypeAlias = tuple[Control | Literal, ...]
"""Control tokens and words, one after the other."""


def fixed_pattern(nodes: Fixed, controls: Sequence[str]) -> str:
    """A regular expression for them, control tokens marked or spelled."""
    return "".join(
        rf"(?:\udc{controls.index(node.text):02x}|{re.escape(node.text)})"
        if isinstance(node, Control)
        else re.escape(node.text)
        for node in nodes
    )


def fixed_text(nodes: Fixed) -> str:
    """The same, spelled."""
    return "".join(node.text for node in nodes)


def begun_length(text: str, tokens: Iterable[str]) -> int:
    """How many characters at the end of a text may be the beginning of one of these tokens."""
    ends = (
        size for token in tokens for size in range(1, len(token)) if text.endswith(token[:size])
    )
    return max(ends, default=0)


def unmark(marked: str, controls: Sequence[str]) -> str:
    """Marked text as a reader sees it: control tokens spelled out."""
    others = {STRAY: "\N{REPLACEMENT CHARACTER}", _NOTHING: ""}
    return re.sub(
        r"[\udb00-\udcff]",
        lambda m: others[m[0]] if m[0] in others else controls[ord(m[0]) & 0xFF],
        marked,
    )


@cache
def control_pattern(controls: tuple[str, ...]) -> str:
    """A regular expression for any control token, marked or spelled."""
    return "|".join([MARKED.pattern, *map(re.escape, controls)])


def text_pattern(controls: tuple[str, ...], barred: str | None) -> str:
    """A regular expression for a run of free text up to the next control token."""
    stop = control_pattern(controls)
    space = f"[ \\t\\r\\n]{{0,{LEADING_SPACE}}}"
    begins = "" if barred is None else f"(?!{_unmarked(barred)})"
    text = rf"{space}(?!{stop})[^ \t\r\n](?:(?!{stop})[\s\S])*"
    return rf"{begins}(?:{text}|[ \t\r\n]{{1,{LEADING_SPACE}}})"


CDATA = ("<![CDATA[", "]]>")
"""What may stand around a value of the slot CDATA."""


class Keys(NamedTuple):
    """How a format writes the name of an argument that stands for itself.

    Attributes:
        regex: any, as written.
        other: the same of one that is not declared, as a mask has it.
        escapes: what is written for some of its characters.
    """

    regex: str
    other: str
    escapes: tuple[tuple[str, str], ...] = ()

    def write(self, key: str) -> str | None:
        """The name as it is written; None if it cannot be."""
        for character, escaped in self.escapes:
            key = key.replace(character, escaped)
        return key if re.fullmatch(self.regex, key) else None

    def names(self, keys: Iterable[str], others: bool) -> Names:
        """Names as they are written, those that can be; and any others, if there are others."""
        known = frozenset(filter(None, map(self.write, keys)))
        return Names(known, self.regex if others else "")

    def read(self, written: str) -> str:
        """The name that is written so."""
        for character, escaped in reversed(self.escapes):
            written = written.replace(escaped, character)
        return written


_WORDS = Keys(WORD, OTHER_WORD)
_MARKED = Keys(MARKED_KEY, MARKED_KEY)
_ATTRIBUTES = Keys(ATTRIBUTE, OTHER_ATTRIBUTE, (("&", "&amp;"), ('"', "&quot;")))


def keys_of(rules: Rules) -> Keys:
    """How a format writes the names of its arguments."""
    for node in (inner for rule in rules.values() for inner in walk(rule)):
        if node == Slot("ATTRIBUTE"):
            return _ATTRIBUTES
        if isinstance(node, Seq):
            for item, following in pairwise(node.items):
                if item == Slot("KEY") and isinstance(following, Literal | Control):
                    return _MARKED
    return _WORDS


class Value(NamedTuple):
    """What a terminal reads as a value.

    Attributes:
        slot: which slot it fills.
        markup: what is no part of it at its end.
        stop: what ends it, that markup or a control token.
    """

    slot: str
    markup: str
    stop: str


@dataclass(frozen=True)
class Reader:
    """The parser of a format.

    Attributes:
        lark: the LALR parser; its starts are those of `STARTS` that the format has.
        keys: how the names of arguments are written.
        values: the values that are read as text, by their terminal.
        json_literals: Python literals may be JSON as well.
        barred: how a reply may not begin.
        tool: the terminal that is a tool's name.
        key: the one that is the name of an argument, if it stands for itself.
        reserved: the format's own words that may stand where a tool's name may: no tool's name.
        written: what is written for a terminal that leaves no choice, but white space.
        strings: the terminals that are a whole string of JSON or of Python.
        numbers: those that are a number: a value may stand where one does.
        heads: how the next argument or call begins, which no string without quotes holds.
    """

    lark: Lark
    keys: Keys
    values: Mapping[str, Value]
    json_literals: bool
    barred: str | None
    tool: str
    key: str
    reserved: re.Pattern[str]
    written: Mapping[str, str]
    strings: frozenset[str]
    numbers: frozenset[str]
    heads: Heads


class _Lexer(ContextualLexer):
    """Leaves out lark's search for collisions between terminals.

    It takes seconds, and happens only where `interegular` is installed, which cannot read some of
    our expressions. What else lark looks for is looked for here.
    """

    def __init__(self, conf: LexerConf, *args: Any, **kwargs: Any) -> None:
        for terminal in conf.terminals:
            if terminal.pattern.min_width == 0:
                raise LexError(f"terminal {terminal.name} can be empty")
        conf.skip_validation = True
        super().__init__(conf, *args, **kwargs)


def build_reader(
    rules: Rules, libraries: Rules, controls: tuple[str, ...], reasoning: Sequence[Fixed] = ()
) -> Reader:
    """The reader of a format.

    Args:
        libraries: the rules of the values that its slots stand for.
        reasoning: what may open reasoning.
    """
    barred = next((n.barred for n in walk(rules["reply"]) if isinstance(n, Free)), None)
    names: dict[str, str] = {
        text_pattern(controls, barred): "FREE",
        f"(?#thought){text_pattern(controls, None)}": "THOUGHT",
    }
    if reasoning:
        before = "|".join(fixed_pattern(opening, controls) for opening in reasoning)
        names[rf"[ \t\r\n]{{1,{LEADING_SPACE}}}(?={before})"] = "BLANK"
    values: dict[str, Value] = {}
    written: dict[str, str] = {}
    for index, text in enumerate(controls):
        names[rf"\udc{index:02x}|{re.escape(text)}"] = f"CONTROL_{index}"

    def terminal(regex: str) -> str:
        return names.setdefault(regex, f"PATTERN_{len(names)}")

    def written_for(name: str, text: str | None) -> str:
        if text and text.strip(SPACE):
            written[name] = text
        return name

    def value(slot: str, stop: Node) -> str:
        if isinstance(stop, Control):
            name = terminal(rf"(?#{slot})(?:(?!{control_pattern((stop.text,))})[\s\S])+")
            values[name] = Value(slot, "", stop.text)
            return f"{name}? {show(stop)}"
        assert isinstance(stop, Literal)
        content, end = rf"(?:(?!{control_pattern((stop.text,))})[\s\S])*", re.escape(stop.text)
        if slot == "CDATA":
            opening, closing = map(re.escape, CDATA)
            closed = rf"(?:(?!{control_pattern((CDATA[1] + stop.text,))})[\s\S])*{closing}"
            content = f"(?:{opening}{closed}|(?!{opening}){content})"
        if slot == "LINES":
            end = _unmarked(lined_closing(stop.text).end)
            content = rf"(?:(?!{MARKED.pattern}|{end})[\s\S])*"
        name = terminal(f"(?#{slot}){content}{end}")
        values[name] = Value(slot, stop.text, stop.text)
        return name

    def sequence(items: Sequence[Node]) -> Iterator[str]:
        skip = False
        for item, following in zip_longest(items, items[1:]):
            if skip:
                skip = False
            elif isinstance(item, Slot) and item.name in UNTIL:
                yield value(item.name, following)
                skip = True
            else:
                yield show(item)

    def show(node: Node) -> str:
        match node:
            case Literal(text):
                # A word goes on where a name does: `user` is not the beginning of `user_info`.
                whole = rf"(?![{NAME_SIGNS}])" if re.fullmatch(r"\w+", text) else ""
                return written_for(terminal(re.escape(text) + whole), text)
            case Pattern(regex, _, habit):
                fixed = habit is not None and "{" not in habit
                return written_for(terminal(_unmarked(regex)), habit if fixed else None)
            case Control(text):
                return written_for(f"CONTROL_{controls.index(text)}", text)
            case Free(name):
                return {"REASONING": "THOUGHT", "BLANK": "BLANK"}.get(name, "FREE")
            case Slot(name):
                return _SLOT_RULES[name]
            case Ref(rule):
                return rule
            case Seq(items):
                return "(" + " ".join(sequence(items)) + ")"
            case Alt(options):
                return "(" + " | ".join(dict.fromkeys(map(show, options))) + ")"
            case Repeat(item, low, high):
                return show(item) + {(0, 1): "?", (0, None): "*", (1, None): "+"}[low, high]
            case _:
                raise TypeError(f"{node!r} is no part of the notation")

    lines = [
        f"{name}: {show(node)}"
        for name, node in {**libraries, **rules}.items()
        if name.islower() and name != "end"
    ]
    tool = terminal(TOOL_NAME)
    keys = keys_of(rules)
    key = terminal(_unmarked(keys.regex))
    lines += [f"name_: {tool}", f"key_: {key}", "begin_:"]
    # An empty rule marks where an object begins: a parser that reads on sees it on its stack.
    lines += [
        f"{rule}: {before} {inner}"
        for rule, before, inner in (
            ("arguments_", "begin_", "object"),
            ("literal_", "", "literal"),
            ("gemma_", "", "gemma_object"),
            ("elements_", "", "elements"),
            ("typed_", "", "typed_value"),
        )
        if inner in libraries
    ]
    # Where a format's own word may stand as well as a tool's name, it is that word.
    names[TOOL_NAME] += ".-1"
    names = {regex: "BLANK.1" if name == "BLANK" else name for regex, name in names.items()}
    lines += [f"{name}: {delimited(regex)}" for regex, name in names.items()]
    lark = Lark(
        "\n".join(lines),
        start=[rule for rule in STARTS if rule in rules],
        parser="lalr",
        propagate_positions=True,
        keep_all_tokens=True,
        maybe_placeholders=False,
        _plugins={"ContextualLexer": _Lexer},
    )
    states = lark.parse_interactive("", start="start").parser_state.parse_conf.states.values()
    rivals = {name for state in states if tool in state for name in state}
    words = [f"(?:{regex})" for regex, name in names.items() if name in rivals]
    literals = [n for rule in rules.values() for n in walk(rule) if n == Slot("LITERAL")]
    strings = [name for regex, name in names.items() if re.fullmatch(regex, '"x y"')]
    numbers = [
        name
        for regex, name in names.items()
        if re.fullmatch(regex, "-1.5e+3") and not re.fullmatch(regex, "x")
    ]
    return Reader(
        lark,
        keys,
        values,
        bool(literals),
        barred,
        tool,
        key,
        re.compile("|".join(words) or "(?!)"),
        written,
        frozenset(name for name in strings if name.startswith("PATTERN") and name not in values),
        frozenset(numbers) - {*values},
        heads_of({**libraries, **rules}),
    )


_SLOT_RULES = {
    "NAME": "name_",
    "KEY": "key_",
    "ATTRIBUTE": "key_",
    "ARGUMENTS": "arguments_",
    "PYTHON": "literal_",
    "LITERAL": "literal_",
    "GEMMA": "gemma_",
    "ELEMENTS": "elements_",
    "TYPED": "typed_",
}


def _unmarked(regex: str) -> str:
    """A regular expression whose negated sets take no marker: no terminal goes on beyond one."""
    return regex.replace("[^", rf"[^{MARKED.pattern[1:-1]}")


def delimited(regex: str) -> str:
    """A regular expression between slashes, on one line, as lark and the engine take it."""
    return "/" + regex.replace("/", r"\/").replace("\\\n", r"\n") + "/"
