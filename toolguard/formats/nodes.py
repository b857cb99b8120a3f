"""The notation of wire formats: what a grammar is made of.

A grammar file, and the grammar of one request made from it, are both `Rules` over these nodes.
Everything else is derived from them: the mask grammar, the lark parser, the shortest completion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal as Choice
from typing import TypeAlias

Region = Choice["reasoning", "text", "call", "done"]
"""Where a turn stands."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Exactly this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Strings:
    """The strings that match `pattern` as a whole, if there is one, and have `low` to `high`
    characters (None: any number). `least` is the shortest, where that is known."""

    pattern: str | None = None
    low: int = 0
    high: int | None = None
    least: str | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression, in the subset that Python's `re` and llguidance share.

    The text also matches `also`, if given: a mask can tell, Python's `re` need not. `habit` is what
    the format's chat template writes there; `{index}` and `{number}` count the calls from 0 and 1.
    `strings` are those that it is, between `quote` where that is not empty. `least` is its shortest
    text, where that is known.
    """

    regex: str
    also: str | None = None
    habit: str | None = None
    strings: Strings | None = None
    quote: str = ""
    least: str | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """A control token: one id where the tokenizer has it, spelled otherwise."""

    text: str


@dataclass(frozen=True, slots=True)
class Free:
    """A run of free text without control tokens: TEXT, REPLY (not blank) or REASONING; or BLANK,
    the white space before reasoning.

    `barred` is how it may not begin: the format's CALL_START, but in reasoning.
    """

    name: str
    barred: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the tools of a request come in: see `toolguard.formats.notation.SLOTS`."""

    name: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """A JSON string or number under a schema (JSON text) that only the mask engine can compile; of
    a string, also which strings these are."""

    schema: str
    strings: Strings | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a string without quotes is that took in what is no part of it, as its end was lost.

    It holds what matches `inside`, and then one of the `marks`, or begins with one of the
    `openers`.
    """

    inside: str
    marks: tuple[str, ...]
    openers: tuple[str, ...]

    @property
    def regex(self) -> str:
        """All such strings."""
        held = f"(?s:.*)({self.inside})(?s:.*)" if self.inside else ""
        return "|".join(filter(None, (held, self.begun)))

    @property
    def begun(self) -> str:
        """Those that begin with one; empty if none is."""
        return "|".join(f"{re.escape(text)}(?s:.*)" for text in self.openers)


@dataclass(frozen=True, slots=True)
class Raw:
    """A string without quotes, up to the control token `stop`, which follows it.

    `taken` is what it may not be; until that is known, `barred` is a text that it may not begin
    with, and `strings` are the strings it is one of. With `lined`, a line end on either side does
    not count.
    """

    regex: str
    also: str | None = None
    stop: str = ""
    taken: Taken | None = None
    barred: str = ""
    strings: Strings | None = None
    lined: bool = False


@dataclass(frozen=True, slots=True)
class Until:
    """A string without quotes, up to and with the first occurrence of the markup that ends it.

    `taken` is what it may not be, without that markup. With `lined`, that markup may be a word in
    it (see `toolguard.formats.lines`).
    """

    regex: str
    stop: str
    also: str | None = None
    taken: Taken | None = None
    strings: Strings | None = None
    lined: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """The key of an undeclared member, none of these: between quotes, or bare.

    `bare` is what it may be where it has no quotes, `left` and `right` are the markup around it.
    `escape` is an escape that it may have between quotes; none spells a part of those excluded.
    """

    excluded: frozenset[str]
    quote: str = '"'
    bare: str = ""
    left: str = ""
    right: str = ""
    escape: str = ""

    @property
    def regex(self) -> str:
        """Any key, also those excluded."""
        if self.quote:
            escape = f"|{self.escape}" if self.escape else ""
            return rf"{self.quote}([^{self.quote}\\\x00-\x1f]{escape})*{self.quote}"
        return f"{self.left}{self.bare}{self.right}"

    @property
    def spelled(self) -> list[str]:
        """The excluded ones, as they stand."""
        return [*map(self.spell, sorted(self.excluded))]

    def spell(self, name: str) -> str:
        """A name, as it stands."""
        return f"{self.quote}{self.left}{name}{self.right}{self.quote}"


@dataclass(frozen=True, slots=True)
class Ref:
    """Another rule."""

    rule: str


@dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; empty: the empty text."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of them; empty: nothing matches."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Between `low` and `high` times (`high` None: any number)."""

    item: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """One named member of `Members`."""

    node: Node
    required: bool


@dataclass(frozen=True, slots=True)
class Members:
    """Members of an object in any order, each at most once, the required ones present.

    `extra` may stand any number of times between them. `low` and `high` bound the number of
    members where there is no `extra`.
    """

    members: tuple[Member, ...]
    separator: Node
    extra: Node | None = None
    low: int = 0
    high: int | None = None

    @property
    def counted(self) -> tuple[int, ...]:
        """The places of those that a mask counts: all, or as many of the required ones as it has
        bits for."""
        places = range(len(self.members))
        if len(places) > MOST_COUNTED:
            return tuple(i for i in places if self.members[i].required)[:MOST_COUNTED]
        return tuple(places)


MOST_COUNTED = 64
"""How many members of an object a mask can count: llguidance's rules carry 64 bits."""

Node: TypeAlias = (
    Literal
    | Pattern
    | Control
    | Free
    | Slot
    | Scalar
    | Raw
    | Until
    | Key
    | Ref
    | Seq
    | Alt
    | Repeat
    | Members
)
Rules: TypeAlias = Mapping[str, Node]

_LEAVES = {Literal, Pattern, Control, Free, Slot, Scalar, Raw, Until, Key, Ref}
NEVER = Alt(())
EMPTY = Seq(())


def optional(node: Node) -> Repeat:
    """`node` or nothing."""
    return Repeat(node, 0, 1)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside `node`."""
    # Asked of every node of every rule, most of which have none: no `match`, no `isinstance`.
    if type(node) in _LEAVES:
        return ()
    if isinstance(node, Seq):
        return node.items
    if isinstance(node, Alt):
        return node.options
    if isinstance(node, Repeat):
        return (node.item,)
    if isinstance(node, Members):
        inner = (*(member.node for member in node.members), node.separator)
        return inner if node.extra is None else (*inner, node.extra)
    return ()


def walk(node: Node) -> list[Node]:
    """`node` and all nodes inside it, each after those that it is in; follows no references."""
    found = [node]
    for each in found:
        found += children(each)
    return found


def rebuild(node: Node, inner: tuple[Node, ...]) -> Node:
    """A copy of `node` with other children, in the order of `children`."""
    match node:
        case Seq():
            return Seq(inner)
        case Alt():
            return Alt(inner)
        case Repeat(_, low, high):
            return Repeat(inner[0], low, high)
        case Members(members, _, extra, low, high):
            n = len(members)
            renewed = tuple(
                Member(child, member.required)
                for member, child in zip(members, inner[:n], strict=True)
            )
            return Members(renewed, inner[n], inner[n + 1] if extra else None, low, high)
        case _:
            return node


def reachable(rules: Rules, start: str) -> dict[str, Node]:
    """The rules that `start` needs, without the branches that can never match."""
    users, suspects = _survey(rules, start)
    needed = {name: rules[name] for name in users}
    if not suspects:
        return needed
    dead: set[str] = set()
    while suspects:
        name = suspects.pop()
        needed[name] = prune(needed[name], dead)
        if needed[name] == NEVER:
            dead.add(name)
            suspects |= users[name] - dead
    return {name: needed[name] for name in _survey(needed, start)[0]}


def _survey(rules: Rules, start: str) -> tuple[dict[str, set[str]], set[str]]:
    """The rules that `start` refers to, itself or by others, with those that refer to each; and
    those of them that have a branch that can never match."""
    users: dict[str, set[str]] = {start: set()}
    suspects: set[str] = set()
    agenda = [start]
    while agenda:
        name = agenda.pop()
        for node in walk(rules[name]):
            if isinstance(node, Ref):
                if node.rule not in users:
                    users[node.rule] = set()
                    agenda.append(node.rule)
                users[node.rule].add(name)
            elif isinstance(node, Alt) and not node.options:
                suspects.add(name)
    return users, suspects


def prune(node: Node, dead: Set[str]) -> Node:
    """`node` without the branches that can never match; rules in `dead` never do."""
    if isinstance(node, Ref):
        return NEVER if node.rule in dead else node
    return possible(node, tuple(prune(child, dead) for child in children(node)))


def possible(node: Node, inner: tuple[Node, ...]) -> Node:
    """A copy of `node` with other children, as `rebuild`, without those that can never match."""
    match node:
        case Seq() if NEVER in inner:
            return NEVER
        case Alt():
            inner = tuple(child for child in inner if child != NEVER)
            return inner[0] if len(inner) == 1 else Alt(inner)
        case Repeat(_, low) if inner[0] == NEVER:
            return EMPTY if low == 0 else NEVER
        case Members(members, separator, extra, low, high):
            n = len(members)
            found = []
            for member, child in zip(members, inner[:n], strict=True):
                if child != NEVER:
                    found.append(Member(child, member.required))
                elif member.required:
                    return NEVER
            if extra is not None and inner[n + 1] == NEVER:
                extra = None
            if not found and extra is None:
                return NEVER
            return Members(tuple(found), separator, extra, low, high)
        case _:
            return rebuild(node, inner)
