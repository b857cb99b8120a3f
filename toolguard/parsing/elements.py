"""Reads arguments that are written as elements, where only the schema knows what is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from lark import Token, Tree

from ..formats.reader import SPACE
from ..tools.schemas import resolve
from ..tools.toolset import Arguments, Tool, parse_json
from .literals import checked

_DEPTH = 24  # how many references and combinations are followed
_Branch: TypeAlias = "tuple[Mapping[str, Any], ...]"
"""Schemas without references and combinations that apply at once."""


def read_elements(content: Tree[Token], tool: Tool) -> Any:
    """The arguments that elements say, typed by the tool's schema.

    Text is a string, or else a scalar as JSON, which it is if that is valid. Elements are an object
    or an array. Nothing at all is an empty string, object or array.

    Raises:
        ValueError: a tag is closed by another.
    """
    return _read(content, tool.parameters, tool)


def _read(content: Tree[Token], schema: Any, tool: Tool) -> Any:
    """The first reading that is valid; if none is, the first."""
    readings = [
        reading
        for branch in _branches(schema, tool, _DEPTH)
        for reading in _readings(content, branch, tool)
    ]
    return next(filter(tool.valid(schema), readings), readings[0])


def _readings(content: Tree[Token], branch: _Branch, tool: Tool) -> Iterator[Any]:
    members = [_element(tree) for tree in content.children if isinstance(tree, Tree)]
    text = _text(content)
    if text:
        try:
            value = parse_json(checked(text))
        except ValueError:
            value = text
        if text == text.strip(SPACE) and not isinstance(value, str | dict | list):
            yield value
        yield text
    elif members:
        named = [(_name(opening, closing, branch), inner) for opening, closing, inner in members]
        yield Arguments((name, _read(inner, _member(branch, name), tool)) for name, inner in named)
        if {name for name, _ in named} == {"item"}:
            yield [_read(inner, _item(branch, i), tool) for i, (_, inner) in enumerate(named)]
    else:
        yield from ("", {}, [])


def _element(tree: Tree[Token]) -> tuple[str, str, Tree[Token]]:
    """What opens an element, what closes it, and what is in between."""
    element = tree.children[0] if tree.data == "top" else tree
    assert isinstance(element, Tree)
    opening, content, closing = element.children
    assert isinstance(opening, Token)
    assert isinstance(content, Tree)
    assert isinstance(closing, Token)
    text = _text(content)
    if text.startswith(opening) and f"</{opening[1:]}" not in text:
        raise ValueError(f"{opening} stands there twice")
    return opening[1:-1], closing[2:-1], content


def _text(content: Tree[Token]) -> str:
    """What stands in an element without elements; empty if nothing does."""
    only = len(content.children) == 2 and isinstance(content.children[1], Token)
    return str(content.children[0]) if only else ""


def _name(opening: str, closing: str, branch: _Branch) -> str:
    """The name of an element. The mask cannot hold an undeclared one to the same name twice."""
    declared = {"item"}.union(*(part.get("properties", ()) for part in branch))
    if opening != closing and not declared.isdisjoint((opening, closing)):
        raise ValueError(f"<{opening}> is closed by </{closing}>")
    return opening


def _branches(schema: Any, tool: Tool, depth: int) -> list[_Branch]:
    """What a schema comes to: one of these."""
    if not isinstance(schema, Mapping) or not depth:
        return [()]
    own: list[_Branch] = [(schema,)]
    together: list[Sequence[Any]] = [[part] for part in schema.get("allOf", ())] + [
        schema[keyword] for keyword in ("anyOf", "oneOf") if keyword in schema
    ]
    if "$ref" in schema:
        together.append([resolve(tool.parameters, schema["$ref"], tool.name)])
    for parts in together:
        options = [branch for part in parts for branch in _branches(part, tool, depth - 1)]
        own = [(*one, *other) for one, other in product(own, options)]
    return own


def _member(branch: _Branch, name: str) -> Any:
    """The schema of a member."""
    own = [part["properties"][name] for part in branch if name in part.get("properties", {})]
    others = [part["additionalProperties"] for part in branch if "additionalProperties" in part]
    return {"allOf": own} if own else next(iter(others), True)


def _item(branch: _Branch, index: int) -> Any:
    """The schema of an item."""
    own = [
        part["prefixItems"][index] if index < len(part.get("prefixItems", ())) else part["items"]
        for part in branch
        if index < len(part.get("prefixItems", ())) or "items" in part
    ]
    return {"allOf": own}
