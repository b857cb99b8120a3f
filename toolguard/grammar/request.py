"""The grammar of one request: a wire format with the tools offered, as the request limits them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cache, partial
from math import inf
from typing import Any
from typing import Literal as Choice

from ..errors import FormatError, RequestError, ToolsetError
from ..formats.heads import UNTIL, Heads
from ..formats.nodes import (
    EMPTY,
    NEVER,
    Alt,
    Control,
    Key,
    Literal,
    Member,
    Members,
    Node,
    Pattern,
    Raw,
    Ref,
    Repeat,
    Rules,
    Seq,
    Slot,
    Taken,
    children,
    optional,
    possible,
    reachable,
    rebuild,
    walk,
)
from ..formats.reader import CALLS, CDATA, Fixed, Keys, fixed_text, keys_of
from ..formats.wire_format import WireFormat
from ..tools.toolset import Tool, Toolset
from .arguments import (
    PLAINLY,
    UNWRITABLE,
    ArgumentRules,
    MadeRules,
    Relaxation,
    TooLargeError,
)
from .dialects import (
    Dialect,
    ElementsDialect,
    GemmaDialect,
    JsonDialect,
    unwritable,
    value_dialects,
)
from .loosening import MOST_VALUES, loosened, relaxation, within
from .raw_strings import stopped

Reasoning = Choice["auto", "open", "none", "reply"]
_Taken = Callable[[str, str], Taken | None]
"""What a string may not be that ends at a markup, and may not begin with some text."""
CHOICES = ("auto", "required", "none")
PROMPT_END = 32
"""How many of a prompt's last ids tell what it has opened."""
_STARTS = {"auto": "start", "open": "opened", "none": "turn", "reply": "replying"}
_REPLIES, _CALLS = ("reply", "replied"), ("calls", "called")


def reasoning_after(prompt: str, wire_format: WireFormat) -> Reasoning:
    """What a prompt, or the end of one, has opened: the turn's reasoning (`open`), or a reply
    (`reply`); `none` if it has closed the reasoning, `auto` if it has opened nothing."""
    end = prompt.rstrip()

    def ends_with(*parts: Fixed) -> bool:
        """Whether the prompt ends with these texts, white space aside; there has to be some."""
        rest = end
        for text in (fixed_text(part).rstrip() for part in reversed(parts)):
            if not text or not rest.endswith(text):
                return False
            rest = rest.removesuffix(text).rstrip()
        return True

    frames = wire_format.reasonings
    if any(ends_with(frame.opening) for frame in frames):
        return "open"
    if ends_with(wire_format.answer.opening):
        return "reply"
    alone = wire_format.ends_reasoning_only
    closed = any(ends_with(frame.closing) if alone else ends_with(*frame) for frame in frames)
    return "none" if closed else "auto"


@dataclass(frozen=True)
class RequestGrammar:
    """The rules of one whole turn, from `start`.

    Attributes:
        rules: all rules that `start` needs; no slot is left in them.
        start: the rule of the whole turn.
        relaxations: what the tools' schemas say that the rules do not.
    """

    rules: Rules
    start: str
    relaxations: tuple[Relaxation, ...]


def request_grammar(
    wire_format: WireFormat,
    toolset: Toolset,
    tool_choice: str = "auto",
    parallel: bool = True,
    reasoning: Reasoning = "auto",
    most: int = MOST_VALUES,
) -> RequestGrammar:
    """The grammar of a turn.

    Args:
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        reasoning: `auto` if the turn may open with reasoning, `open` if the prompt has opened it
            already, `none` if there is none, `reply` if the prompt has opened a reply.
        most: how many values the tools' schemas may have in all; beyond it, the largest are
            loosened.

    Raises:
        RequestError: the choice names no tool, or demands a call where none can be made; or no
            prompt opens a reply in the format.
        ToolsetError: a tool's schema can be satisfied by no arguments, or its name means something
            else in the format.
    """
    if reasoning not in _STARTS:
        raise RequestError(f"reasoning {reasoning!r}: use {', '.join(_STARTS)}")
    rules = dict(wire_format.rules)
    if tool_choice not in CHOICES and tool_choice in toolset.names:
        toolset = toolset.only(tool_choice)
        tool_choice = "required"
    if tool_choice not in CHOICES:
        raise RequestError(
            f"tool_choice {tool_choice!r}: use auto, required, none or one of "
            f"{', '.join(toolset.names) or '(no tools are offered)'}"
        )
    if tool_choice == "required":
        if not len(toolset):
            raise RequestError("tool_choice demands a call, but no tools are offered")
        rules |= dict.fromkeys(_REPLIES, NEVER)
    relaxations: list[Relaxation] = []
    if tool_choice != "none":
        toolset, relaxations = _without_reserved(wire_format, toolset)
        toolset, loosening = within(toolset, most)
        relaxations += loosening
    offered = {} if tool_choice == "none" else {_own("call", i): t for i, t in enumerate(toolset)}
    if offered:
        relaxations += [*_offer(rules, toolset, wire_format.reader.heads), PLAINLY]
    else:
        rules |= dict.fromkeys(_CALLS, NEVER)
    if not parallel:
        rules["further"] = NEVER
    start = _STARTS[reasoning]
    if start not in rules:
        raise RequestError(
            f"reasoning {reasoning!r}: {wire_format.name} has no reply that a prompt opens"
        )
    reached = reachable(rules, start)
    if reached[start] == NEVER:
        raise RequestError(
            f"tool_choice {tool_choice!r}: the prompt has opened a reply, which no call can follow "
            f"in {wire_format.name}"
        )
    may_call = start != "replying" or "called" in rules
    lost = [tool for rule, tool in offered.items() if may_call and rule not in reached]
    for tool in lost:
        unwritten = [it for it in relaxations if (it.tool, it.keyword) == (tool.name, UNWRITABLE)]
        if not unwritten:
            raise ToolsetError(f"tool {tool.name!r}: no arguments can satisfy its schema")
        if not any(rule in reached for rule in offered):
            raise ToolsetError(f"tool {tool.name!r}: {unwritten[0].reason}")
        relaxations.append(
            Relaxation(tool.name, "", "required", f"{unwritten[0].reason}, nor is the tool called")
        )
    return RequestGrammar(reached, start, tuple(relaxations))


def _without_reserved(
    wire_format: WireFormat, toolset: Toolset
) -> tuple[Toolset, list[Relaxation]]:
    """The tools but those whose calls would be read as something else, which are recorded.

    Raises:
        ToolsetError: there is no other.
    """
    reserved = tuple(filter(wire_format.reader.reserved.match, toolset.names))
    reason = (
        f"in {wire_format.name} this word means something else where a tool's name stands: rename "
        "the tool"
    )
    if reserved and len(reserved) == len(toolset):
        raise ToolsetError(f"tool {reserved[0]!r}: {reason}")
    others = Toolset(tuple(tool for tool in toolset if tool.name not in reserved))
    return others, [
        Relaxation(name, "", "name", f"{reason}; it is not called") for name in reserved
    ]


def _own(rule: str, index: int) -> str:
    """The name of a rule, or of the part of it, that is a tool's own."""
    return f"{rule}_{index}"


def _offer(rules: dict[str, Node], toolset: Toolset, heads: Heads) -> list[Relaxation]:
    """Puts a choice between the tools in place of what in a call depends on the tool.

    What is around that is the same for all: it is there once, however many tools are offered.
    """
    general = dict(rules)
    roots = [name for name in CALLS if name in rules]
    slotted: set[str] = set()
    below = {name for root in roots for name in reachable(rules, root)}
    while more := {name for name in below - slotted if _depends(rules[name], slotted)}:
        slotted |= more
    keys = keys_of(general)
    made = MadeRules()
    fillers = [
        _Filler(tool, index, general, slotted, keys, heads, made)
        for index, tool in enumerate(toolset)
    ]

    def choice(node: Node, root: str) -> Node:
        own = [_own(root, index) for index in range(len(fillers))]
        for name, filler in zip(own, fillers, strict=True):
            try:
                made[name] = filler.fill(node)
            except TooLargeError:
                filler.loosen()
                made.room = inf
                made[name] = filler.fill(node)
                made.room = 0
        return Alt(tuple(map(Ref, own)))

    def offered(node: Node, root: str) -> Node:
        match node:
            case Ref(rule):
                if rules[rule] is general[rule]:
                    rules[rule] = offered(general[rule], root)
                return node
            case Seq(items):
                places = [i for i, item in enumerate(items) if _depends(item, slotted)]
                first, end = places[0], places[-1] + 1
                inner = items[first:end]
                chosen = choice(Seq(inner), root) if len(inner) > 1 else offered(inner[0], root)
                return Seq((*items[:first], chosen, *items[end:]))
            case _:
                return choice(node, root)

    for name in rules.keys() - slotted:
        rules[name] = _fused(name, rules[name])
    for root in roots:
        rules[root] = offered(general[root], root)
    rules |= made
    return [relaxation for filler in fillers for relaxation in filler.relaxations]


class _Filler:
    """Fills the slots of a call's rules for one tool."""

    def __init__(
        self,
        tool: Tool,
        index: int,
        general: Rules,
        slotted: Set[str],
        keys: Keys,
        heads: Heads,
        rules: MadeRules,
    ) -> None:
        self.tool, self.index, self.general, self.slotted = tool, index, general, slotted
        self.keys = keys
        self.taken = cache(partial(heads.taken, keys.names(tool.keys, tool.is_open)))
        self.rules = rules  # those of all tools
        self.values: dict[tuple[str, str], Node] = {}
        self.relaxations: list[Relaxation] = []

    def loosen(self) -> None:
        self.tool, self.values = loosened(self.tool), {}
        self.relaxations = [relaxation(self.tool)]

    @property
    def required(self) -> bool:
        """Whether no call goes without arguments."""
        return bool(ArgumentRules(self.tool, "").properties()[1])

    def rule(self, name: str) -> str:
        """The tool's own copy of a rule, by its name."""
        own = _own(name, self.index)
        if own not in self.rules:
            self.rules[own] = _fused(name, self.fill(self.general[name]))
        return own

    def fill(self, node: Node) -> Node:
        match node:
            case Slot("NAME"):
                return Literal(self.tool.name)
            case Slot("ARGUMENTS"):
                return self.whole(JsonDialect())
            case Slot("GEMMA"):
                return self.whole(GemmaDialect(self.general["QUOTE"]))
            case Slot("ELEMENTS"):
                return self.whole(ElementsDialect())
            case Ref("argument"):
                raise FormatError("`argument` stands in `argument*` or `argument (X argument)*`")
            case Ref(rule) if rule in self.slotted:
                return Ref(self.rule(rule))
            case Repeat(Ref("argument"), 0, None):
                return self.members(EMPTY)
            case Seq((Ref("argument"), Repeat(Seq((*separator, Ref("argument"))), 0, None))):
                return self.members(Seq(tuple(separator)))
            case Repeat(item, 0, 1):
                inner = self.fill(item)
                needed = isinstance(inner, Members) and any(m.required for m in inner.members)
                return inner if needed else Repeat(inner, 0, 1)
            case Literal() | Pattern() | Control():
                return node
            case Alt(options) if any(map(_has_arguments, options)) and self.required:
                with_them = (each for each in options if _depends(each, self.slotted))
                return Alt(tuple(map(self.fill, with_them)))
            case _:
                return rebuild(node, tuple(self.fill(child) for child in children(node)))

    def whole(self, dialect: Dialect) -> Node:
        """All arguments as one object."""
        name = _own("schema", self.index)
        builder = ArgumentRules(self.tool, name, dialect, rules=self.rules)
        written = builder.value(self.tool.parameters, "", ())
        self.keep(builder)
        return written

    def keep(self, builder: ArgumentRules) -> None:
        self.relaxations += [it for it in builder.relaxations if it not in self.relaxations]

    def members(self, separator: Node) -> Node:
        """The arguments one by one, in any order."""
        builder = ArgumentRules(self.tool, "")
        properties, required, other = builder.properties()
        rule, keys = self.general["argument"], self.keys
        members: list[Member] = []
        for key, schema in properties.items():
            path, name = f"/{key}", keys.write(key)
            if name is None:
                builder.relax(path, UNWRITABLE, unwritable(key))
            written = NEVER if name is None else self.filled(rule, Literal(name), schema, path)
            members.append(Member(written, key in required))
        known = frozenset(filter(None, map(keys.write, properties)))
        others = Key(known, "", keys.other)
        extra = self.filled(rule, others, other, "/*") if other else None
        found = Members(tuple(members), separator, extra)
        builder.relax_uncounted(found, "")
        self.keep(builder)
        if extra is None and not members:
            return EMPTY
        return found if required else optional(found)

    def filled(self, node: Node, key: Node, schema: Any, path: str) -> Node:
        """The rule `argument` for one of them."""
        match node:
            case Literal() | Pattern() | Control():
                return node
            case Slot("KEY" | "ATTRIBUTE"):
                return key
            case Slot(name):
                return self.value(name, schema, path)
            case Ref(rule) if rule in self.slotted:
                return self.filled(self.general[rule], key, schema, path)
            case Seq(items):
                filled = [self.filled(item, key, schema, path) for item in items]
                return NEVER if NEVER in filled else Seq(_run_on(items, filled, self.taken))
            case _:
                inner = tuple(self.filled(child, key, schema, path) for child in children(node))
                return possible(node, inner)

    def value(self, slot: str, schema: Any, path: str) -> Node:
        """A value in every dialect that the slot may be written in."""
        if (slot, path) not in self.values:
            self.values[slot, path] = self.written(slot, schema, path)
        return self.values[slot, path]

    def written(self, slot: str, schema: Any, path: str) -> Node:
        """The same, made anew."""
        options: list[Node] = []
        for number, (dialect, kinds) in enumerate(value_dialects()[slot]):
            name = f"{slot.lower()}_{self.index}_{len(self.rules)}_{number}"
            builder = ArgumentRules(self.tool, name, dialect.within(self.taken), kinds, self.rules)
            node = builder.value(schema, path, ())
            self.keep(builder)
            if node == NEVER:
                continue
            spaced = slot in UNTIL and "string" not in kinds
            options.append(Seq((dialect.space, node, dialect.space)) if spaced else node)
        if slot == "CDATA":
            opening, closing = map(Literal, CDATA)
            options += [Seq((opening, option, closing)) for option in options]
        return Alt(tuple(options))


def _fused(name: str, node: Node) -> Node:
    """An `opening` as one terminal: until its end the text may still become a reply, and the engine
    never splits a terminal."""
    return _joined(node) if name.startswith("opening") else node


def _joined(node: Node) -> Pattern:
    match node:
        case Literal(text):
            return Pattern(re.escape(text), least=text)
        case Pattern(regex, least=least):
            return Pattern(f"({regex})", least=least)
        case Repeat(item, 0, 1):
            return Pattern(f"({_joined(item).regex})?", least="")
        case Seq(items):
            parts = [*map(_joined, items)]
            known = [part.least for part in parts if part.least is not None]
            least = "".join(known) if len(known) == len(parts) else None
            return Pattern("".join(part.regex for part in parts), least=least)
        case Alt(options):
            parts = [*map(_joined, options)]
            known = [part.least for part in parts if part.least is not None]
            least = min(known, key=len) if len(known) == len(parts) else None
            return Pattern(f"({'|'.join(part.regex for part in parts)})", least=least)
        case _:
            raise FormatError(f"an `opening` is made of text and terminals, not of {node!r}")


def _run_on(items: Sequence[Node], filled: Sequence[Node], taken: _Taken) -> tuple[Node, ...]:
    """Strings without quotes run up to the markup that follows them."""
    result: list[Node] = []
    for index, node in enumerate(filled):
        before = items[index - 1] if index else None
        value = isinstance(before, Slot) and before.name in value_dialects()
        if value and isinstance(node, Literal | Control):
            result[-1] = _stopped(result[-1], node, taken)
        else:
            result.append(node)
    return tuple(result)


def _stopped(value: Node, stop: Literal | Control, taken: _Taken) -> Node:
    match value:
        case Alt(options):
            return Alt(tuple(_stopped(option, stop, taken) for option in options))
        case Seq((Literal(opening), inner, Literal(closing))) if (opening, closing) == CDATA:
            end = Literal(closing + stop.text)
            return Seq((Literal(opening), _stopped(inner, end, lambda *_: None)))
        case Raw(barred=barred):
            return stopped(value, stop, taken(stop.text, barred))
        case _:
            return Seq((value, stop))


def _has_arguments(node: Node) -> bool:
    """Whether arguments stand for themselves in a node."""
    return Ref("argument") in walk(node)


def _depends(node: Node, slotted: Set[str]) -> bool:
    """Whether a node is not the same for all tools."""
    return any(
        isinstance(n, Slot) or (isinstance(n, Ref) and n.rule in slotted) for n in walk(node)
    )
