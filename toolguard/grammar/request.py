"""The grammar of one request: a wire format with the tools offered, as the request limits them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
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
    Until,
    children,
    optional,
    reachable,
    rebuild,
    walk,
)
from ..formats.reader import CALLS
from ..formats.wire_format import WireFormat
from ..tools.toolset import Tool, Toolset
from .arguments import ArgumentRules, Relaxation
from .dialects import (
    VALUES,
    Dialect,
    ElementsDialect,
    GemmaDialect,
    JsonDialect,
    RefusedError,
    bare,
)

Reasoning = Choice["auto", "open", "none"]
_Taken = Callable[[str], Taken | None]
"""What a string may not be that ends at a markup."""
CHOICES = ("auto", "required", "none")
_STARTS = {"auto": "start", "open": "opened", "none": "turn"}


def reasoning_after(prompt: str, wire_format: WireFormat) -> Reasoning:
    """Whether a prompt, or the end of one, has opened the turn's reasoning, or closed it."""
    opener = wire_format.reasoning_opener
    if opener and prompt.rstrip().endswith(opener):
        return "open"
    closer = wire_format.reasoning_closer
    return "none" if closer and prompt.rstrip().endswith(closer) else "auto"


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
) -> RequestGrammar:
    """The grammar of a turn.

    Args:
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        reasoning: `auto` if the turn may open with reasoning, `open` if the prompt has opened it
            already, `none` if there is none.

    Raises:
        RequestError: the choice names no tool, or demands a call where no tools are offered.
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
        rules["reply"] = NEVER
    relaxations: list[Relaxation] = []
    offered = {} if tool_choice == "none" else {_own("call", i): t for i, t in enumerate(toolset)}
    if offered:
        _refuse_reserved(wire_format, toolset)
        relaxations = _offer(rules, toolset, wire_format.reader.heads)
    else:
        rules["calls"] = NEVER
    if not parallel:
        rules["further"] = NEVER
    start = _STARTS[reasoning]
    reached = reachable(rules, start)
    for rule, tool in offered.items():
        if rule not in reached:
            raise ToolsetError(f"tool {tool.name!r}: no arguments can satisfy its schema")
    return RequestGrammar(reached, start, tuple(relaxations))


def _refuse_reserved(wire_format: WireFormat, toolset: Toolset) -> None:
    """A call of such a tool would be read as something else."""
    for name in filter(wire_format.reader.reserved.match, toolset.names):
        raise ToolsetError(
            f"tool {name!r}: in {wire_format.name} this word means something else where a tool's "
            f"name stands: rename the tool"
        )


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
    fillers = [_Filler(tool, index, general, slotted, heads) for index, tool in enumerate(toolset)]

    def choice(node: Node, root: str) -> Node:
        own = [_own(root, index) for index in range(len(fillers))]
        for name, filler in zip(own, fillers, strict=True):
            try:
                filler.rules[name] = filler.fill(node)
            except RefusedError as refused:
                raise ToolsetError(f"tool {filler.tool.name!r}: {refused}") from None
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
    for filler in fillers:
        rules |= filler.rules
    return [relaxation for filler in fillers for relaxation in filler.relaxations]


class _Filler:
    """Fills the slots of a call's rules for one tool."""

    def __init__(
        self, tool: Tool, index: int, general: Rules, slotted: Set[str], heads: Heads
    ) -> None:
        self.tool, self.index, self.general, self.slotted = tool, index, general, slotted
        self.heads = heads
        self.rules: dict[str, Node] = {}
        self.relaxations: list[Relaxation] = []

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
                return self.whole(GemmaDialect())
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
            case _:
                return rebuild(node, tuple(self.fill(child) for child in children(node)))

    def whole(self, dialect: Dialect) -> Node:
        """All arguments as one object."""
        builder = ArgumentRules(self.tool, _own("schema", self.index), dialect)
        written = builder.value(self.tool.parameters, "", ())
        self.keep(builder)
        return written

    def keep(self, builder: ArgumentRules) -> None:
        self.rules |= builder.rules
        self.relaxations += [it for it in builder.relaxations if it not in self.relaxations]

    def members(self, separator: Node) -> Node:
        """The arguments one by one, in any order."""
        builder = ArgumentRules(self.tool, "")
        properties, required, other = builder.properties()
        self.keep(builder)
        rule = self.general["argument"]
        members = tuple(
            Member(
                self.filled(rule, bare(key), schema, f"/{key}"),
                key in required,
            )
            for key, schema in properties.items()
        )
        others = Key(frozenset(properties), quote="")
        extra = self.filled(rule, others, other, "/*") if other else None
        if extra is None and not members:
            return EMPTY
        found = Members(members, separator, extra)
        return found if required else optional(found)

    def filled(self, node: Node, key: Node, schema: Any, path: str) -> Node:
        """The rule `argument` for one of them."""
        match node:
            case Slot("KEY"):
                return key
            case Slot(name):
                return self.value(name, schema, path)
            case Ref(rule) if rule in self.slotted:
                return self.filled(self.general[rule], key, schema, path)
            case Seq(items):
                filled = [self.filled(item, key, schema, path) for item in items]
                return Seq(_run_on(items, filled, partial(self.heads.taken, self.tool.keys)))
            case _:
                inner = tuple(self.filled(child, key, schema, path) for child in children(node))
                return rebuild(node, inner)

    def value(self, slot: str, schema: Any, path: str) -> Node:
        """A value in every dialect that the slot may be written in."""
        options: list[Node] = []
        for number, (dialect, kinds) in enumerate(VALUES[slot]):
            name = f"{slot.lower()}_{self.index}_{len(self.rules)}_{number}"
            builder = ArgumentRules(self.tool, name, dialect, kinds)
            node = builder.value(schema, path, ())
            self.keep(builder)
            spaced = slot in UNTIL and "string" not in kinds
            options.append(Seq((dialect.space, node, dialect.space)) if spaced else node)
        return Alt(tuple(options))


def _fused(name: str, node: Node) -> Node:
    """An `opening` as one terminal: until its end the text may still become a reply, and the engine
    never splits a terminal."""
    return Pattern(_joined(node)) if name.startswith("opening") else node


def _joined(node: Node) -> str:
    match node:
        case Literal(text):
            return re.escape(text)
        case Pattern(regex):
            return f"({regex})"
        case Repeat(item, 0, 1):
            return f"({_joined(item)})?"
        case Seq(items):
            return "".join(map(_joined, items))
        case Alt(options):
            return f"({'|'.join(map(_joined, options))})"
        case _:
            raise FormatError(f"an `opening` is made of text and terminals, not of {node!r}")


def _run_on(items: Sequence[Node], filled: Sequence[Node], taken: _Taken) -> tuple[Node, ...]:
    """Strings without quotes run up to the markup that follows them."""
    result: list[Node] = []
    for index, node in enumerate(filled):
        before = items[index - 1] if index else None
        value = isinstance(before, Slot) and before.name in VALUES
        if value and isinstance(node, Literal | Control):
            result[-1] = _stopped(result[-1], node, taken)
        else:
            result.append(node)
    return tuple(result)


def _stopped(value: Node, stop: Literal | Control, taken: _Taken) -> Node:
    match value:
        case Alt(options):
            return Alt(tuple(_stopped(option, stop, taken) for option in options))
        case Raw(regex, also) if isinstance(stop, Literal):
            return Until(regex, stop.text, also, taken(stop.text))
        case Raw(regex, also):
            return Seq((Raw(regex, also, stop.text, taken(stop.text)), stop))
        case _:
            return Seq((value, stop))


def _depends(node: Node, slotted: Set[str]) -> bool:
    """Whether a node is not the same for all tools."""
    return any(
        isinstance(n, Slot) or (isinstance(n, Ref) and n.rule in slotted) for n in walk(node)
    )
