"""Wire formats: how a model family writes tool calls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from lark import Token

from ..errors import FormatError
from .nodes import (
    EMPTY,
    Alt,
    Control,
    Free,
    Literal,
    Node,
    Pattern,
    Ref,
    Repeat,
    Rules,
    Seq,
    Slot,
    children,
    optional,
    rebuild,
    walk,
)
from .notation import SUFFIX, controls, read_grammar, read_header
from .reader import SPACE, Fixed, Reader, build_reader, control_pattern, fixed_text

# The wheel carries the grammars inside the package; a checkout has them at its top.
_PACKAGED = Path(__file__).parents[1] / "grammars"
GRAMMARS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "grammars"

_LIBRARIES = {
    "ARGUMENTS": "json",
    "PYTHON": "literals",
    "LITERAL": "literals",
    "GEMMA": "gemma",
    "ELEMENTS": "elements",
    "TYPED": "cofl",
}
"""The grammar file of values that a slot stands for."""
_EXPECTED = ("start", "opened", "turn", "reply", "calls", "call", "end")


class Frame(NamedTuple):
    """The fixed texts around something that a turn says.

    Attributes:
        opening: what stands before it; a prompt may end with it.
        closing: what stands behind it.
    """

    opening: Fixed = ()
    closing: Fixed = ()


@dataclass(frozen=True, eq=False)
class WireFormat:
    """How a model family writes tool calls: one grammar file.

    Attributes:
        name: the file's name without its ending, e.g. `hermes`; of a variant, `qwen3_xml+bare`;
            behind it the suffix of its tags, where that is not the file's: `hy4:6124c78e`, or
            `hy4:` for none.
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
    def load(name: str) -> WireFormat:
        """The format of that name.

        Raises:
            FormatError: there is no such format, its tags have no such suffix, or its grammar file
                is malformed.
        """
        return _suffixed(name) if ":" in name else _bundled(name)

    @staticmethod
    def from_file(path: Path) -> WireFormat:
        """A format from a grammar file of one's own.

        Raises:
            FormatError: the file is malformed, or lacks one of the rules that every format has.
        """
        rules = dict(read_grammar(path))
        missing = [rule for rule in _EXPECTED if rule not in rules]
        if missing:
            raise FormatError(f"{path.name} has no rule {missing[0]!r}: every format needs it")
        reasoning = rules.get("reasoning")
        options = reasoning.options if isinstance(reasoning, Alt) else (reasoning,)
        opened = [o for o in options if isinstance(o, Seq) and isinstance(o.items[0], Control)]
        if len(opened) == len(options):
            # Models write white space before it, whatever the format.
            blank = optional(Free("BLANK"))
            rules["reasoning"] = Alt(tuple(Seq((blank, *option.items)) for option in opened))
        return WireFormat._of(path.stem, rules, read_header(path))

    @staticmethod
    def _of(name: str, rules: Rules, about: Mapping[str, str]) -> WireFormat:
        end = rules["end"]
        ends = tuple(
            node.text
            for node in (end.options if isinstance(end, Alt) else (end,))
            if isinstance(node, Control)
        )
        return WireFormat(name, rules, controls(rules), ends, about)

    def suffixed_in(self, text: str) -> WireFormat | None:
        """The same format with the suffix that its opener has in a text: a checkpoint's tags may
        have another one than the grammar file's, or none. None where it is the file's own."""
        suffix = self.rules.get(SUFFIX)
        if not isinstance(suffix, Pattern) or suffix.habit is None:
            return None
        before, after = map(re.escape, self.opener.split(suffix.habit))
        found = re.search(f"{before}({suffix.regex})?{after}", text)
        if found is None or found[1] == suffix.habit:
            return None
        return WireFormat.load(f"{self.name}:{(found[1] or '').removeprefix(':')}")

    @cached_property
    def reader(self) -> Reader:
        """The parser of finished turns (marked text)."""
        for name in self.libraries.keys() & self.rules.keys():
            if name.islower() and self.libraries[name] != self.rules[name]:
                raise FormatError(
                    f"{self.name}: a rule {name!r} is in the grammar of values already"
                )
        return build_reader(
            self.rules, self.libraries, self.controls, [it.opening for it in self.reasonings]
        )

    @cached_property
    def libraries(self) -> Rules:
        """The rules and terminals of the values that its slots stand for."""
        slots = {n.name for rule in self.rules.values() for n in walk(rule) if isinstance(n, Slot)}
        libraries: dict[str, Node] = {}
        for name in sorted({_LIBRARIES[slot] for slot in slots if slot in _LIBRARIES}):
            libraries |= library(name, self.rules.get("QUOTE"))
        return libraries

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
        return frozenset(self.controls) - used - {*self.ends, *controls(self.libraries)}

    @cached_property
    def inner(self) -> frozenset[str]:
        """The control tokens inside a call, its opener and its closer left out."""
        used = {node.text for node in self._below("call") if isinstance(node, Control)}
        return frozenset(used - {self.opener, self.closer})

    @cached_property
    def sayable(self) -> frozenset[str]:
        """The control tokens that the text of a value may name: those of calls and of reasoning.
        What ends a turn, or frames a reply, is never a word; what frames what others say, only
        beside one of these."""
        framed = {node.text for node in self._below("reply") if isinstance(node, Control)}
        return frozenset(self.controls) - framed - self.framing - {*self.ends}

    @cached_property
    def thinkable(self) -> frozenset[str]:
        """The control tokens that reasoning may name: those of calls."""
        frames = (node for frame in self.reasonings for part in frame for node in part)
        return self.sayable - {node.text for node in frames if isinstance(node, Control)}

    @cached_property
    def markup(self) -> tuple[str, ...]:
        """What else a call is written with, as far as it is not a word or punctuation."""
        texts = {node.text for node in self._below("call") if isinstance(node, Literal)}
        return tuple(sorted(text for text in texts if len(text) > 3 and not text.isalnum()))

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """All that the format marks a turn with: its control tokens and its markup."""
        return (*self.controls, *self.markup)

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
        plain = ("FREE", "BLANK", "CONTROL_")
        if "FREE" not in first or any(not name.startswith(plain) for name in first):
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
    def any_control(self) -> re.Pattern[str]:
        """Any control token, marked or spelled out."""
        return re.compile(control_pattern(self.controls))

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
    def reasoning(self) -> Frame:
        """What stands around reasoning, as a rule; nothing where a format has none."""
        return Frame(*self._around("reasoning", "REASONING")) if self.reasonings else Frame()

    @cached_property
    def reasonings(self) -> tuple[Frame, ...]:
        """What may stand around reasoning: some models have other tags for each effort."""
        found = self._arounds("reasoning", "REASONING") if "reasoning" in self.rules else ()
        return tuple(Frame(*around) for around in found)

    @cached_property
    def answer(self) -> Frame:
        """What stands around the text of a reply that a prompt may open, or of what comes before
        calls there; nothing where no prompt opens one."""
        if "replying" not in self.rules:
            return Frame()
        closings = [self._around("replied", "REPLY")[1]]
        if "called" in self.rules:
            closings.append(self._around("called", "TEXT")[1])
        same = takewhile(lambda parts: len({*parts}) == 1, zip(*closings, strict=False))
        return Frame(self._around("reply", "REPLY")[0], tuple(parts[0] for parts in same))

    @cached_property
    def announcing(self) -> str:
        """What stands before a reply that is a preamble alone; empty where none may be."""
        if "preamble" not in self.rules:
            return ""
        opening = fixed_text(self._around("preamble", "TEXT")[0])
        _, *others = (fixed_text(before) for before, _ in self._arounds("reply", "REPLY"))
        return opening if opening in others else ""

    @cached_property
    def ends_reasoning_only(self) -> bool:
        """Whether what closes reasoning closes nothing else."""
        elsewhere = {*self._below("turn")}
        return not elsewhere.issuperset(self.reasoning.closing)

    def _around(self, rule: str, name: str) -> tuple[Fixed, Fixed]:
        """The fixed texts right before and behind some free text of a rule."""
        found = list(self._arounds(rule, name))
        return next((around for around in found if around[0]), found[-1])

    def _arounds(self, rule: str, name: str) -> Iterator[tuple[Fixed, Fixed]]:
        """The same for each option of the rule."""
        node = self.rules[rule]
        free = (Free(name), optional(Free(name)))
        for option in node.options if isinstance(node, Alt) else (node,):
            items = list(self._flat(option))
            at = next(i for i, item in enumerate(items) if item in free)
            yield _fixed(reversed(items[:at]))[::-1], _fixed(items[at + 1 :])

    def _flat(self, node: Node) -> Iterator[Node]:
        """The parts of a sequence, those of the rules that it refers to in their place."""
        match node:
            case Seq(items):
                for item in items:
                    yield from self._flat(item)
            case Ref(rule):
                yield from self._flat(self.rules[rule])
            case _:
                yield node

    @cached_property
    def reasoning_opener(self) -> str:
        """The control token that opens reasoning; empty where a format has none."""
        return _first_control(Seq(self.reasoning.opening)) or ""

    @cached_property
    def reasoning_closer(self) -> str:
        """The control token that closes reasoning, and nothing else; empty where none does."""
        closer = _first_control(Seq(self.reasoning.closing)) or ""
        return closer if closer in self.reasoning_closers else ""

    @cached_property
    def reasoning_closers(self) -> frozenset[str]:
        """The control tokens that close reasoning, and nothing else."""
        closers = {_first_control(Seq(frame.closing)) or "" for frame in self.reasonings}
        elsewhere = {node.text for node in self._below("turn") if isinstance(node, Control)}
        return frozenset(closers - elsewhere - {""})


def _fixed(nodes: Iterable[Node]) -> Fixed:
    """The fixed texts at the head of some nodes."""
    found: list[Control | Literal] = []
    for node in nodes:
        if not isinstance(node, Control | Literal):
            break
        found.append(node)
    return tuple(found)


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
def _bundled(name: str) -> WireFormat:
    known = format_names(variants=True)
    if name not in known:
        raise FormatError(f"unknown wire format {name!r}: known are {', '.join(known)}")
    return WireFormat.from_file(GRAMMARS / f"{name}.lark")


@lru_cache(maxsize=64)  # a suffix is anyone's to choose
def _suffixed(name: str) -> WireFormat:
    """The format of a name with a suffix for its tags, which is put in the place of the file's."""
    base, _, suffix = name.partition(":")
    own = _bundled(base)
    declared = own.rules.get(SUFFIX)
    if not isinstance(declared, Pattern) or declared.habit is None:
        raise FormatError(f"wire format {name!r}: the tags of {base} have no suffix")
    if suffix and not re.fullmatch(declared.regex, f":{suffix}"):
        raise FormatError(f"wire format {name!r}: no suffix of {base}'s tags is :{suffix}")
    habit, put = declared.habit, suffix and f":{suffix}"

    def respelled(node: Node) -> Node:
        if isinstance(node, Control):
            return Control(node.text.replace(habit, put))
        return rebuild(node, tuple(map(respelled, children(node))))

    rules = {rule: respelled(node) for rule, node in own.rules.items()}
    return WireFormat._of(name, rules, own.about)


@cache
def library(name: str, quote: Node | None = None) -> Rules:
    """The rules and terminals of a grammar file of values, such as `grammars/json.lark`.

    Args:
        quote: what stands around strings, in the place of the file's own QUOTE.
    """
    return read_grammar(GRAMMARS / f"{name}.lark", {} if quote is None else {"QUOTE": quote})


def format_names(variants: bool = False) -> tuple[str, ...]:
    """The names of the wire formats that toolguard ships.

    Args:
        variants: also those that allow more than their family's template writes, as
            `qwen3_xml+bare`. They are never guessed, and recognised only where the template's reply
            needs one.
    """
    names = {path.stem for path in GRAMMARS.glob("*.lark")} - set(_LIBRARIES.values())
    return tuple(sorted(name for name in names if variants or "+" not in name))


@cache
def guesses() -> tuple[WireFormat, ...]:
    """The formats that the text of a turn can tell apart: of those that write the same tags, the
    one that reads the values of the others, too."""
    formats = [WireFormat.load(name) for name in format_names()]
    told: dict[tuple[frozenset[str], tuple[str, ...]], WireFormat] = {}
    for each in formats:
        tags = frozenset(each.controls), each.markup
        if tags not in told or Slot("LINES") in each._below("call"):
            told[tags] = each
    return tuple(told.values())
