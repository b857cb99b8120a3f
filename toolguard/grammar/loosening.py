"""Tools too large for a mask: their arguments by name and type alone, and said so.

Masks are made anew for each request's tools, so what they may cost is bounded. Nothing is refused
for its size: finished calls are validated against the whole schema all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..tools.schemas import Schema
from ..tools.toolset import Tool, Toolset
from .arguments import Relaxation

MOST_VALUES = 40_000
"""How many values the schemas of a request may have that a mask holds in full, in all: five times
as many as 117 tools of real servers."""


_MORE = {"$ref", "allOf", "anyOf", "oneOf"}
"""Keywords that may declare further arguments, or say more of those that are there."""


def within(toolset: Toolset, most: int) -> tuple[Toolset, list[Relaxation]]:
    """The tools, the largest of them loosened where all have more than `most` values."""
    sizes = {tool.name: _size(tool.parameters) for tool in toolset}
    loose: set[str] = set()
    for name in sorted(sizes, key=sizes.__getitem__):
        most -= sizes[name]
        if most < 0:
            loose.add(name)
    tools = tuple(loosened(tool) if tool.name in loose else tool for tool in toolset)
    return Toolset(tools), [relaxation(tool) for tool in toolset if tool.name in loose]


def loosened(tool: Tool) -> Tool:
    """A tool whose arguments have names and types, and nothing else is asked of them."""
    whole = tool.parameters
    properties = {key: _typed(schema) for key, schema in whole.get("properties", {}).items()}
    closed = not tool.is_open and not _MORE & whole.keys()
    parameters = {"type": "object", "properties": properties, "additionalProperties": not closed}
    return replace(tool, parameters={**parameters, "required": whole.get("required", [])})


def relaxation(tool: Tool) -> Relaxation:
    """What is said of a tool that was loosened."""
    reason = "the tools are too large for a mask, which holds only the types of its arguments"
    return Relaxation(tool.name, "", "properties of arguments", reason)


def _typed(schema: Any) -> Schema:
    return {"type": schema["type"]} if isinstance(schema, Mapping) and "type" in schema else {}


def _size(schema: Any) -> int:
    count, agenda = 0, [schema]
    while agenda:
        value = agenda.pop()
        count += 1
        if isinstance(value, Mapping):
            agenda += value.values()
        elif isinstance(value, list):
            agenda += value
    return count
