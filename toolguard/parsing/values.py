"""Reads the arguments of a call: JSON objects, or one argument after the other in any dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from lark import Token, Tree

from ..formats.heads import Names, lost
from ..formats.reader import CDATA, Keys, Reader
from ..tools.toolset import Arguments, Tool, parse_json
from .elements import read_elements
from .literals import checked, read_literal

Valid = Callable[[Any], bool]


class TookInError(ValueError):
    """A string lost what ends it, and took in what follows; says what it took in, and its end."""

    def __init__(self, taken: str, stop: str) -> None:
        self.taken, self.stop = taken, stop
        super().__init__(f"{stop!r} is missing before {taken!r}")


_KINDS: dict[str, Callable[[Any], bool]] = {
    "OTHER": lambda value: not isinstance(value, str),
    "NUMBER": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "OBJECT": lambda value: isinstance(value, dict),
    "ARRAY": lambda value: isinstance(value, list),
    "NULL": lambda value: value is None,
}


def read_arguments(call: Tree[Token], source: str, reader: Reader, tool: Tool) -> Any:
    """The arguments of a call, typed by its tool's schema where the wire does not say the type.

    Raises:
        ValueError: a value is none of its dialect.
    """
    for tree in call.find_data("arguments_"):
        return parse_json(_text(tree, source))
    for tree in call.find_data("gemma_"):
        return _gemma(tree, reader)
    for tree in call.find_data("elements_"):
        return read_elements(next(_trees(tree)), tool)
    trees = call.find_data("argument")
    return Arguments(named_value(tree, source, reader, tool) for tree in trees)


def named_value(argument: Tree[Token], source: str, reader: Reader, tool: Tool) -> tuple[str, Any]:
    """The name and the value of one argument that stands for itself.

    Raises:
        ValueError: the value is none of its dialect.
    """
    key = reader.keys.read(str(next(argument.find_data("key_")).children[0]))
    return key, _value(argument, source, reader, tool, tool.accepts(key))


def _value(argument: Tree[Token], source: str, reader: Reader, tool: Tool, valid: Valid) -> Any:
    slot, text, stop = "STRING", "", ""
    for tree in argument.find_data("literal_"):
        return read_literal(_text(tree, source), reader.json_literals)
    for tree in argument.find_data("typed_"):
        return _typed(next(_trees(tree)), reader, tool)
    for token in _value_tokens(argument, reader):
        value = reader.values[token.type]
        slot, text, stop = value.slot, token.removesuffix(value.markup), value.stop
    read = read_value(slot, text, valid)
    wrapped = slot == "CDATA" and text.startswith(CDATA[0])
    if isinstance(read, str) and not wrapped:
        _check_end(text, stop, reader, tool)
    return read


def _check_end(text: str, stop: str, reader: Reader, tool: Tool) -> None:
    """Raises where a string took in what follows it."""
    taken = lost(reader.heads, _names(reader.keys, tool.keys, tool.is_open)).search(text)
    if taken:
        raise TookInError(taken[0], stop)


@lru_cache(maxsize=256)
def _names(keys: Keys, known: frozenset[str], others: bool) -> Names:
    return keys.names(known, others)


def read_value(slot: str, text: str, valid: Valid) -> Any:
    """A value that stands for itself; see `toolguard.formats.notation.SLOTS`.

    Where a string and another type are both possible, it is the other type if that is valid: null,
    integer, number, boolean, object, array, string, as transformers' response parsing has it.

    Raises:
        ValueError: it is no value of its slot.
    """
    if slot == "STRING":
        return text
    if slot in _KINDS:
        value = parse_json(checked(text))
        if not _KINDS[slot](value):
            raise ValueError(f"{text[:40]!r} is not of the type that the call says")
        return value
    if slot == "CDATA" and text.startswith(CDATA[0]):
        text = text[len(CDATA[0]) : -len(CDATA[1])]
    plain = text
    if slot == "LINES":
        plain = text.removeprefix("\n").removesuffix("\n")
    try:
        value = read_literal(checked(text), True)
    except ValueError:
        return plain
    if isinstance(value, str) or (not valid(value) and valid(plain)):
        return plain
    return value


def _gemma(tree: Tree[Token], reader: Reader) -> Any:
    inner = [child for child in tree.children if isinstance(child, Tree)]
    match tree.data:
        case "gemma_" | "gemma_value" if inner:
            return _gemma(inner[0], reader)
        case "gemma_value":
            return parse_json(str(tree.children[0]))
        case "gemma_object":
            pairs = (tuple(_gemma(part, reader) for part in _trees(member)) for member in inner)
            return Arguments(pairs)
        case "gemma_key":
            return _gemma(inner[0], reader) if inner else str(tree.children[0])
        case "gemma_array":
            return [_gemma(child, reader) for child in inner]
        case _:
            return "".join(_value_tokens(tree, reader))


def _typed(tree: Tree[Token], reader: Reader, tool: Tool) -> Any:
    kind, *inside, _ = tree.children
    values = [_typed(child, reader, tool) for child in inside if isinstance(child, Tree)]
    if kind == 'list">':
        return values
    if kind == 'dict">':
        return Arguments(zip(map(str, inside[1::4]), values, strict=True))
    token = tree.children[1]
    assert isinstance(token, Token)
    slot, markup, stop = reader.values[token.type]
    text = token.removesuffix(markup)
    value = read_value(slot, text, lambda _: True)
    if isinstance(value, dict | list):
        raise ValueError("an object or an array is written in elements")
    if isinstance(value, str):
        _check_end(text, stop, reader, tool)
    return value


def _value_tokens(tree: Tree[Token], reader: Reader) -> Iterator[Token]:
    for node in tree.scan_values(lambda node: isinstance(node, Token)):
        if node.type in reader.values:
            yield node


def _trees(tree: Tree[Token]) -> Iterator[Tree[Token]]:
    return (child for child in tree.children if isinstance(child, Tree))


def _text(tree: Tree[Token], source: str) -> str:
    return source[tree.meta.start_pos : tree.meta.end_pos]
