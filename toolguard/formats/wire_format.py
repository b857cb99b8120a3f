"""Wire formats: how a model family writes tool calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from lark import Token

from ..errors import FormatError
from .nodes import EMPTY, Alt, Control, Literal, Node, Ref, Repeat, Rules, Seq, Slot, walk
from .notation import controls, read_grammar, read_header
from .reader import SPACE, Reader, build_reader, control_pattern

# The wheel carries the grammars inside the package; a checkout has them at its top.
_PACKAGED = Path(__file__).parents[1] / "grammars"
GRAMMARS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "grammars"

_LIBRARIES = {
    "ARGUMENTS": "json",
    "PYTHON": "literals",
    "LITERAL": "literals",
    "GEMMA": "gemma",
    "ELEMENTS": "elements",
}
"""The grammar file of values that a slot stands for."""
_EXPECTED = ("start", "opened", "turn", "reply", "calls", "call", "end")


@dataclass(frozen=True, eq=False)
class WireFormat:
    """How a model family writes tool calls: one grammar file.

    Attributes:
        name: the file's name without its ending, e.g. `hermes`.
        rules: its rules and terminals.
        controls: the text of its control tokens, in the order of the file.
        ends: the control tokens that end a turn.
        about: what the file's header says: `families`, `tokens`, `turn end`, `arguments`,
            `separator`, `call ids`, `reasoning`, `source`, and the format's name.
    """

    name: str
    rules: Rules = field(repr=False)
    controls: tuple[str, ...]
    ends: tuple[str, ...]
    about: Mapping[str, str] = field(default_factory=dict, repr=False)

    @staticmethod
    @cache
    def load(name: str) -> WireFormat:
        """The format of that name.

        Raises:
            FormatError: there is no such format, or its grammar file is malformed.
        """
        if name not in format_names():
            raise FormatError(
                f"unknown wire format {name!r}: known are {', '.join(format_names())}"
            )
        return WireFormat.from_file(GRAMMARS / f"{name}.lark")

    @staticmethod
    def from_file(path: Path) -> WireFormat:
        """A format from a grammar file of one's own.

        Raises:
            FormatError: the file is malformed, or lacks one of the rules that every format has.
        """
        rules = read_grammar(path)
        missing = [rule for rule in _EXPECTED if rule not in rules]
        if missing:
            raise FormatError(f"{path.name} has no rule {missing[0]!r}: every format needs it")
        end = rules["end"]
        ends = tuple(
            node.text
            for node in (end.options if isinstance(end, Alt) else (end,))
            if isinstance(node, Control)
        )
        return WireFormat(path.stem, rules, controls(rules), ends, read_header(path))

    @cached_property
    def reader(self) -> Reader:
        """The parser of finished turns (marked text)."""
        slots = {n.name for rule in self.rules.values() for n in walk(rule) if isinstance(n, Slot)}
        libraries: dict[str, Node] = {}
        for name in sorted({_LIBRARIES[slot] for slot in slots if slot in _LIBRARIES}):
            libraries |= library(name)
        for name in libraries.keys() & self.rules.keys():
            if name.islower() and libraries[name] != self.rules[name]:
                raise FormatError(
                    f"{self.name}: a rule {name!r} is in the grammar of values already"
                )
        return build_reader(self.rules, libraries, self.controls)

    @cached_property
    def opener(self) -> str:
        """The control token that opens the first call of a turn, and nothing else; empty where a
        format has none."""
        opener = _first_control(self.rules["calls"]) or ""
        elsewhere = [*self._below("reply"), *self._below("reasoning")]
        return "" if Control(opener) in elsewhere else opener

    @cached_property
    def closer(self) -> str:
        """The control token that closes a call; empty where a format has none."""
        return _last_control(self.rules["call"]) or _last_control(self.rules["calls"]) or ""

    @cached_property
    def framing(self) -> frozenset[str]:
        """The control tokens that no turn has: they frame what others say."""
        used = {node.text for node in self._below("start") if isinstance(node, Control)}
        return frozenset(self.controls) - used - {*self.ends}

    @cached_property
    def inner(self) -> frozenset[str]:
        """The control tokens inside a call, its opener and its closer left out."""
        used = {node.text for node in self._below("call") if isinstance(node, Control)}
        return frozenset(used - {self.opener, self.closer})

    @cached_property
    def markup(self) -> tuple[str, ...]:
        """What else a call is written with, as far as it is not a word or punctuation."""
        texts = {node.text for node in self._below("call") if isinstance(node, Literal)}
        return tuple(sorted(text for text in texts if len(text) > 3 and not text.isalnum()))

    @cached_property
    def is_json(self) -> bool:
        """The arguments of a call are a JSON object."""
        return any(node == Slot("ARGUMENTS") for node in self._below("call"))

    @cached_property
    def replies_plainly(self) -> bool:
        """Whether any text without a control token is a whole reply, but for white space."""
        parser = self.reader.lark.parse_interactive("", start="start").parser_state
        table = parser.parse_conf.states
        first = {name for name in table[parser.position] if name.isupper()}
        if "FREE" not in first or any(not name.startswith(("FREE", "CONTROL_")) for name in first):
            return False
        parser.feed_token(Token("FREE", ""))
        return "$END" in table[parser.position]

    def may_call(self, text: str) -> bool:
        """Whether a text has what is in every turn that makes a call: told without the parser,
        which takes its time to be made."""
        return all(needed in text for needed in self._needed)

    @cached_property
    def tagged(self) -> bool:
        """Whether every call has a control token in it."""
        return not self._needed.isdisjoint(self.controls)

    @cached_property
    def _needed(self) -> frozenset[str]:
        return self._always(Ref("calls"))

    def _always(self, node: Node) -> frozenset[str]:
        """The fixed texts without which a node is never written."""
        match node:
            case Control(text) | Literal(text):
                return frozenset({text})
            case Ref(rule):
                return self._always(self.rules[rule])
            case Seq(items):
                return frozenset().union(*map(self._always, items))
            case Alt(options):
                return frozenset.intersection(*map(self._always, options))
            case Repeat(item, low, _) if low:
                return self._always(item)
            case _:
                return frozenset()

    @cached_property
    def spelled(self) -> re.Pattern[str]:
        """Any control token, spelled out."""
        return re.compile("|".join(map(re.escape, self.controls)))

    @cached_property
    def blank(self) -> re.Pattern[str]:
        """Nothing but control tokens and white space."""
        return re.compile(f"(?:[{SPACE}]|{control_pattern(self.controls)})*")

    @cached_property
    def body(self) -> re.Pattern[str]:
        """How the inside of a call may begin right behind its opener; matches nothing where a
        format has no opener."""
        parser = self.reader.lark.parse_interactive("", start="start").parser_state
        table = parser.parse_conf.states
        opener = f"CONTROL_{self.controls.index(self.opener)}" if self.opener else ""
        if opener not in table[parser.position]:
            return re.compile("(?!)")
        parser.feed_token(Token(opener, self.opener))
        begins = [
            terminal.pattern.to_regexp()
            for terminal in self.reader.lark.terminals
            if terminal.name in table[parser.position]
        ]
        return re.compile("|".join(begins))

    def _below(self, rule: str) -> Iterator[Node]:
        """All nodes of a rule and of the rules that it refers to."""
        for node in walk(self.rules.get(rule, EMPTY)):
            if isinstance(node, Ref):
                yield from self._below(node.rule)
            else:
                yield node

    @cached_property
    def reasoning_opener(self) -> str:
        """The control token that opens reasoning; empty where a format has none."""
        return _first_control(self.rules.get("reasoning", EMPTY)) or ""

    @cached_property
    def reasoning_closer(self) -> str:
        """The control token that closes reasoning; empty where a format has none."""
        return _first_control(self.rules.get("thoughts", EMPTY)) or ""


def _first_control(node: Node) -> str | None:
    match node:
        case Control(text):
            return text
        case Seq(items):
            return next(filter(None, map(_first_control, items)), None)
        case Alt(options):
            return _first_control(options[0])
        case _:
            return None


def _last_control(node: Node) -> str | None:
    """The control token that a node always ends with, but for white space and text."""
    match node:
        case Control(text):
            return text
        case Seq(items):
            needed = [item for item in items if not (isinstance(item, Repeat) and item.low == 0)]
            return _last_control(needed[-1]) if needed else None
        case Alt(options):
            return _last_control(options[0])
        case _:
            return None


@cache
def library(name: str) -> Rules:
    """The rules and terminals of a grammar file of values, such as `grammars/json.lark`."""
    return read_grammar(GRAMMARS / f"{name}.lark")


def format_names() -> tuple[str, ...]:
    """The names of the wire formats that toolguard ships."""
    names = {path.stem for path in GRAMMARS.glob("*.lark")} - set(_LIBRARIES.values())
    return tuple(sorted(names))
