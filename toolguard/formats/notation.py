"""Reads a grammar file: the subset of Lark's notation that llguidance and lark share.

Rules are lower case, terminals upper case. A terminal that is one quoted string is a control
token. `%declare` names what toolguard fills in, `%import .file (NAMES)` takes terminals and rules
from another grammar file. After a regular expression, `-> "text"` is what chat templates write.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Transformer, UnexpectedInput

from ..errors import FormatError
from .nodes import (
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
    rebuild,
    walk,
)

FREE = ("TEXT", "REPLY", "REASONING")
CALL_START = "CALL_START"
"""The terminal that says how no text may begin, where no token opens a call."""
SUFFIX = "SUFFIX"
"""The terminal that says how the tags of a checkpoint may end; its habit is how the file's end."""
SLOTS = {
    "NAME": "the tool's name",
    "ARGUMENTS": "its arguments, a JSON object",
    "GEMMA": "its arguments, an object as Gemma writes it, strings between two QUOTE",
    "ELEMENTS": "its arguments as MiniMax M3 writes them, each an element of its own",
    "TYPED": "the value of one argument as Cohere writes it, its type in front",
    "KEY": "the name of one argument as it is where markup follows, else a word",
    "ATTRIBUTE": 'the name of one argument, & and " as &amp; and &quot;',
    "PYTHON": "the value of one argument, a Python literal",
    "LITERAL": "a Python literal, or JSON",
    "VALUE": "a string as it is, anything else as JSON or a Python literal",
    "LINES": "the same; a line end on either side does not count",
    "CDATA": "the same, or that between <![CDATA[ and ]]>",
    "STRING": "only a string, as it is",
    "OTHER": "anything but a string, as JSON",
    "NUMBER": "only a number",
    "BOOLEAN": "only true or false",
    "OBJECT": "only a JSON object",
    "ARRAY": "only a JSON array",
    "NULL": "only null",
}
"""Where the tools of a request come in. What is written as it is ends at what follows it."""

_NOTATION = r"""
    start: (definition | declare | import)*
    definition: DEFINED ":" alt ("->" STRING)?
    declare: "%declare" NAME+
    import: "%import" "." NAME "(" NAME ("," NAME)* ")"
    alt: seq ("|" seq)*
    seq: repeat+
    repeat: item MARK?
    ?item: STRING -> literal
        | REGEX -> pattern
        | NAME -> name
        | "(" alt ")"
    DEFINED.1: /[A-Za-z]\w*(?=[ \t]*:)/
    NAME: /[A-Za-z]\w*/
    MARK: /[?*+]/
    STRING: /"(\\.|[^"\\])*"/
    REGEX: /\/(\\.|[^\/\\])+\//
    %ignore /[ \t\r\n]+/
    %ignore /\/\/[^\n]*/
"""
_BOUNDS = {"?": (0, 1), "*": (0, None), "+": (1, None)}


class _Reader(Transformer[Any, Any]):
    def literal(self, items: list[str]) -> Node:
        return Literal(ast.literal_eval(items[0]))

    def pattern(self, items: list[str]) -> Node:
        return Pattern(items[0][1:-1].replace(r"\/", "/"))

    def name(self, items: list[str]) -> Node:
        return Ref(str(items[0]))

    def repeat(self, items: list[Any]) -> Node:
        return items[0] if len(items) == 1 else Repeat(items[0], *_BOUNDS[items[1]])

    def seq(self, items: list[Node]) -> Node:
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def alt(self, items: list[Node]) -> Node:
        return items[0] if len(items) == 1 else Alt(tuple(items))


@lru_cache
def _parser() -> Lark:
    return Lark(_NOTATION, parser="lalr")


def read_grammar(path: Path, given: Rules | None = None) -> Rules:
    """The rules and terminals of a grammar file, with its imports.

    Args:
        given: what takes the place of the definitions of these names in the file.

    Raises:
        FormatError: the file is not in the notation, or a name in it is not defined.
    """
    try:
        tree = _Reader().transform(_parser().parse(path.read_text("utf-8")))
    except OSError as error:
        raise FormatError(f"cannot read the grammar file {path}: {error}") from error
    except UnexpectedInput as error:
        raise FormatError(
            f"{path.name}, line {error.line}, column {error.column}: not in the notation of "
            f"grammar files (see toolguard/formats/notation.py)"
        ) from error
    rules: dict[str, Node] = {}
    declared: set[str] = set()
    for statement in tree.children:
        if statement.data == "definition":
            name, node, *habit = statement.children
            if str(name).isupper() and isinstance(node, Literal):
                node = Control(node.text)
            if habit:
                node = Pattern(node.regex, habit=ast.literal_eval(habit[0]))
            rules[str(name)] = node
        elif statement.data == "declare":
            declared.update(str(name) for name in statement.children)
        else:
            source, *names = (str(name) for name in statement.children)
            library = read_grammar(path.parent / f"{source}.lark")
            rules.update({name: library[name] for name in names if name in library})
    rules.update(given or {})
    for name in declared - {*FREE, *SLOTS}:
        raise FormatError(
            f"{path.name}: %declare {name}: only {', '.join((*FREE, *SLOTS))} can be declared"
        )
    return {name: _resolve(node, rules, declared, path) for name, node in rules.items()}


def _resolve(node: Node, rules: Rules, declared: set[str], path: Path) -> Node:
    """Puts terminals and placeholders where their names stand; rules stay references."""
    if isinstance(node, Ref):
        if node.rule in declared:
            if node.rule not in FREE:
                return Slot(node.rule)
            start = rules.get(CALL_START) if node.rule in ("TEXT", "REPLY") else None
            return Free(node.rule, start.regex if isinstance(start, Pattern) else None)
        if node.rule not in rules:
            raise FormatError(f"{path.name}: {node.rule} is used but not defined")
        return rules[node.rule] if node.rule.isupper() else node
    return rebuild(node, tuple(_resolve(child, rules, declared, path) for child in children(node)))


def read_header(path: Path) -> dict[str, str]:
    """The header of a grammar file: `// field      what it says`, `// name: in a sentence`."""
    found: dict[str, str] = {}
    field = ""
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("//"):
            break
        text = line[2:].strip()
        entry = re.match(r"// (\w[\w +]*?)(?:: | {2,})(\S.*)", line)
        if entry:
            field = entry[1]
            found[field] = entry[2]
        elif text and field:
            found[field] += f" {text}"
        else:
            field = ""
    return found


def controls(rules: Rules) -> tuple[str, ...]:
    """The control tokens of a grammar, in the order of its file."""
    found = {n.text: None for node in rules.values() for n in walk(node) if isinstance(n, Control)}
    return tuple(found)
