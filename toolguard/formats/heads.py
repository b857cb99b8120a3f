"""How the next argument of a call, or the next call, begins.

A string without quotes that holds such a head has lost what ends it, and took in what follows. A
head is a whole sequence of the format, key and opener, or closer and opener: a single tag may be
meant, as in a text about tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from .lines import meant
from .nodes import (
    Alt,
    Control,
    Literal,
    Node,
    Pattern,
    Ref,
    Repeat,
    Rules,
    Seq,
    Slot,
    Taken,
    children,
    rebuild,
    walk,
)

_BLANK = r"[ \t\r\n]*"
_LEAST = 2  # characters of an opener that no value begins with by chance: `>` may be

UNTIL = (
    *("VALUE", "LINES", "CDATA", "STRING", "OTHER", "NUMBER", "BOOLEAN", "OBJECT", "ARRAY", "NULL"),
)
"""The slots whose values are read as text, up to what follows them."""

_KEYS = {Slot("KEY"), Slot("ATTRIBUTE")}
_TYPED = {Slot("TYPED"), Ref("typed"), Ref("typed_value")}
"""Values that say their type: what leads to one is a head, whatever its type."""
Path = tuple[Node, ...]


class Names(NamedTuple):
    """What the arguments of a call may be called.

    Attributes:
        known: those that the tool declares, as they are written.
        other: a regular expression of any other; empty where the tool takes none.
    """

    known: frozenset[str]
    other: str = ""

    @property
    def regex(self) -> str:
        """Any of them; empty if there are none."""
        return "|".join(filter(None, (*map(re.escape, sorted(self.known)), self.other)))


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of a format: what may stand between a value and the next.

    Attributes:
        paths: the nodes of each; what is the same for no two tools is a slot.
        openers: what no value begins with, as it stands right before one already: but for one
            sign alone, which may, unless a line end follows where one stands before values.
        habit: the white space that chat templates write before a head.
        begin: the text that an argument begins with.
        lined: values stand on lines of their own (see `toolguard.formats.lines`).
    """

    paths: tuple[Path, ...]
    openers: tuple[str, ...]
    habit: str
    begin: str
    lined: bool = False

    def inside(self, names: Names) -> str:
        """A regular expression of any head, in a call whose arguments have these names."""
        keys = names.regex
        heads: list[str] = []
        for path in self.paths:
            if keys or not _KEYS & {*path}:
                head = "".join(_shown(node, keys) for node in path)
                heads.append(meant(head) if self.lined and _start(path) == self.begin else head)
        return "|".join(heads)

    def taken(self, names: Names, stop: str, barred: str = "") -> Taken | None:
        """What no string without quotes is that ends at `stop`, and does not begin with `barred`;
        None: it may be anything else."""
        inside = self.inside(names)
        openers = (*self.openers, barred) if barred else self.openers
        marks = dict.fromkeys(self._marks(names, stop[-1]))
        return Taken(inside, tuple(marks), openers) if inside or openers else None

    def _marks(self, names: Names, last: str) -> Iterator[str]:
        """The beginning of each head, up to where it has `last` for the first time, or where a name
        stands that may be any."""
        for path in self.paths:
            begun = [""]
            for node in path:
                if isinstance(node, Literal | Control):
                    end = node.text.find(last) + 1
                    begun = [text + node.text[: end or None] for text in begun]
                    if end:
                        break
                elif node in _KEYS and not names.other:
                    begun = [text + key for text in begun for key in sorted(names.known)]
                else:  # as white space: what is in front of it is told, too
                    break
            yield from begun


@lru_cache(maxsize=256)
def lost(heads: Heads, names: Names) -> re.Pattern[str]:
    """Where a value took in what is no part of it, in a call whose arguments have these names."""
    openers = (rf"\A{re.escape(opener)}" for opener in heads.openers)
    return re.compile("|".join(filter(None, (heads.inside(names), *openers))) or "(?!)")


def heads_of(rules: Rules) -> Heads:
    """The heads of a format whose calls hold values that are read as they stand."""
    argument = Ref("argument")
    before = [path for path, _ in _around(argument, rules, _leads)]
    if not before:
        return Heads((), (), "", "")
    # Inside of a value that says its type, members and items do.
    inner = [
        path
        for node in walk(rules.get("typed_value", Alt(())))
        if isinstance(node, Repeat)
        for path, _ in _around(node.item, rules, _leads)
    ]
    values = [*_around(argument, rules, _is_value)]
    behind = [path for _, path in _around(Ref("call"), rules, _is_arguments)]
    between = [path for path, _ in _around(Ref("further"), rules, _is_call)]
    named, *_ = (path for path, _ in _around(Ref("call"), rules, _is_name))
    ends = {_start(path) for _, path in values}
    calls = [_inlined((*a, *b, *named), rules) for a in behind for b in between]
    paths = [_bare(path) for path in (*before, *inner, *calls)]
    lined = any(node == Slot("LINES") for node in walk(rules["argument"]))
    last = [path[-1] for path in (*before, *(path for path, _ in values))]
    openers = {node.text + "\n" * lined for node in last if isinstance(node, Literal | Control)}
    blanks = [path[0].item for path in before if isinstance(path[0], Repeat)]
    return Heads(
        # No value goes on beyond what ends it.
        tuple(dict.fromkeys(path for path in paths if _start(path) not in ends)),
        tuple(sorted(text for text in openers if len(text) >= _LEAST)),
        next((b.habit for b in blanks if isinstance(b, Pattern) and b.habit), ""),
        _start(_bare(before[0])),
        lined,
    )


def _around(
    node: Node, rules: Rules, sought: Callable[[Node], bool]
) -> Iterator[tuple[Path, Path]]:
    """What stands before, and what behind, each node that is sought."""
    if sought(node):
        yield (), ()
        return
    match node:
        case Slot("TYPED"):
            yield from _around(Ref("typed_value"), rules, sought)
        case Ref(rule):  # values inside of values are like them
            others = {name: inner for name, inner in rules.items() if name != rule}
            yield from _around(rules.get(rule, Alt(())), others, sought)
        case Seq(items):
            for place, item in enumerate(items):
                for before, behind in _around(item, rules, sought):
                    yield (*items[:place], *before), (*behind, *items[place + 1 :])
        case Alt(options):
            for option in options:
                yield from _around(option, rules, sought)
        case Repeat(item):
            yield from _around(item, rules, sought)


def _leads(node: Node) -> bool:
    return node in _TYPED or _is_value(node)


def _is_value(node: Node) -> bool:
    return isinstance(node, Slot) and node.name in UNTIL


def _is_arguments(node: Node) -> bool:
    return node == Repeat(Ref("argument"), 0, None)


def _is_call(node: Node) -> bool:
    return node == Ref("call")


def _is_name(node: Node) -> bool:
    return node == Slot("NAME")


def _bare(path: Path) -> Path:
    """A path without the white space on either side."""
    start, end = _is_blank(path[0]), len(path) - _is_blank(path[-1])
    return path[start:end]


def _inlined(path: Path, rules: Rules) -> Path:
    """A path with what its references stand for."""
    found: list[Node] = []
    for node in path:
        match node:
            case Ref(rule):
                found += _inlined((rules[rule],), rules)
            case Seq(items):
                found += _inlined(items, rules)
            case _:
                inner = (_inlined((child,), rules) for child in children(node))
                whole = tuple(path[0] if len(path) == 1 else Seq(path) for path in inner)
                found.append(rebuild(node, whole))
    return tuple(found)


def _is_blank(node: Node) -> bool:
    match node:
        case Repeat(item, 0, 1):
            return _is_blank(item)
        case Pattern(_, _, habit):
            return habit is not None and not habit.strip()
        case _:
            return False


def _start(path: Sequence[Node]) -> str:
    """The fixed text that a path begins with; empty if it does not."""
    first = path[0] if path else None
    return first.text if isinstance(first, Literal | Control) else ""


def _shown(node: Node, keys: str) -> str:
    """A node as a regular expression that masks and Python share."""
    if _is_blank(node):
        return _BLANK
    match node:
        case Literal(text) | Control(text):
            return re.escape(text)
        case Pattern(regex):
            return f"({regex})"
        case Slot() if node in _KEYS:
            return f"({keys})"
        case Seq(items):
            return "".join(_shown(item, keys) for item in items)
        case Alt(options):
            return f"({'|'.join(_shown(option, keys) for option in options)})"
        case Repeat(item, 0, 1):
            return f"({_shown(item, keys)})?"
        case _:
            raise TypeError(f"{node!r} has no place between two values")
