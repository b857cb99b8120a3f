"""The tools of benchmarks, whose schemas are nearly JSON Schema, as OpenAI-style tools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..tools.schemas import ALIASES

_TYPES = {**ALIASES, "enum": "string", "list(enum)": "array"}


def tool_name(name: str) -> str:
    """A function's name as OpenAI-style tools may have it: `math.factorial` is `math_factorial`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def tool(function: Mapping[str, Any]) -> dict[str, Any]:
    """A function of a benchmark as an OpenAI-style tool."""
    made = {
        "name": tool_name(str(function.get("name", ""))),
        "description": function.get("description", ""),
        "parameters": _schema(function.get("parameters") or {"type": "object", "properties": {}}),
    }
    return {"type": "function", "function": made}


def _schema(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        match key, value:
            case "type", "any":
                pass
            case "type", "list(string)":
                made["type"] = "array"
                made["items"] = {"type": "string"}
            case "type", "objectArray":
                made["type"] = "array"
                made.setdefault("items", {"type": "object"})
            case "type", str():
                made["type"] = _TYPES.get(value, value)
            case "properties", Mapping():
                made[key] = {name: _schema(inner) for name, inner in value.items()}
            case "items" | "additionalProperties", _:
                made[key] = _schema(value)
            case _:
                made[key] = value
    return made
