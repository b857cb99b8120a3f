"""Normalises the JSON schema of a tool's parameters.

After it, one meaning has one spelling: `nullable` is an `anyOf` with null, names of types are
JSON Schema's own, and an object that lists its properties takes no others unless it says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema_rs import meta

from ..errors import ToolsetError

Schema: TypeAlias = dict[str, Any]

# Checking schemas in Rust is a hundred times as fast. What it makes of regular expressions, URIs
# and other drafts is not the same, and jsonschema's word counts: it validates the calls.
_PATTERN = re.compile(r'"(?:pattern(?:Properties)?|format|\$\w+)"')

# What BFCL, Python-minded authors and providers write for JSON Schema's types.
ALIASES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "int": "integer",
    "long": "integer",
    "str": "string",
    "bool": "boolean",
    "list": "array",
    "tuple": "array",
    "None": "null",
}
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_ONE = ("items", "additionalProperties", "contains", "propertyNames", "unevaluatedProperties")
_CONDITIONS = ("not", "if", "then", "else")
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_OPENS = {
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
}


def normalise(parameters: Any, tool: str) -> Schema:
    """The normalised copy of a tool's parameter schema; not to be changed, since it is shared.

    Raises:
        ToolsetError: it is no schema of an object; the message names the tool and the place.
    """
    try:
        text = json.dumps(parameters or {})
    except (TypeError, ValueError) as error:
        raise ToolsetError(f"tool {tool!r}: parameters are not JSON: {error}") from error
    return _normalised(text, tool)


@lru_cache(maxsize=4096)
def _normalised(text: str, tool: str) -> Schema:
    """Cached by content: a server sees the same tools in request after request, and checking a
    schema against its meta-schema costs more than all the rest."""
    parameters = json.loads(text)
    if not isinstance(parameters, Mapping):
        raise ToolsetError(
            f"tool {tool!r}: parameters are {type(parameters).__name__}, not a JSON schema object"
        )
    referring = '"$ref"' in text
    merged = set(_merged_references(parameters)) if referring else set()
    place = f"tool {tool!r}: parameters"
    schema: Schema = _normalise({"type": "object", **parameters}, place, merged)
    if schema["type"] != "object":
        raise ToolsetError(
            f"tool {tool!r}: parameters have type {schema['type']!r}: they must be an object "
            f'({{"type": "object", "properties": {{...}}}})'
        )
    if not _OPENS & schema.keys():
        _close(schema)
    for reference in _references(schema) if referring else ():
        resolve(schema, reference, tool)
    if not _PATTERN.search(text) and meta.is_valid(schema):
        return schema
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path) or "(top)"
        raise ToolsetError(f"tool {tool!r}: parameters at {place}: {error.message}") from error
    return schema


def _normalise(schema: Any, place: str, merged: set[str], closed: bool = True) -> Any:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        raise ToolsetError(f"{place}: {schema!r} is no JSON schema; give an object or a boolean")
    result: Schema = {}
    own = bool(schema.get("properties"))
    for key, value in schema.items():
        here = f"{place}/{key}"
        if key in _ONE or key in _CONDITIONS:
            result[key] = (
                [_normalise(item, f"{here}/{i}", merged) for i, item in enumerate(value)]
                if isinstance(value, list)
                else _normalise(value, here, merged, key not in _CONDITIONS)
            )
        elif key in _MANY and isinstance(value, list):
            alone = key == "prefixItems" or (key != "allOf" and not own)
            result[key] = [
                _normalise(item, f"{here}/{i}", merged, alone) for i, item in enumerate(value)
            ]
        elif key in _NAMED and isinstance(value, Mapping):
            result[key] = {
                name: _normalise(item, f"{here}/{name}", merged, f"#/{key}/{name}" not in merged)
                for name, item in value.items()
            }
        elif key == "type":
            names = value if isinstance(value, list) else [value]
            if "any" in names:
                continue
            names = [ALIASES.get(name, name) for name in names]
            for name in names:
                if name not in _TYPES:
                    raise ToolsetError(f"{here}: unknown type {name!r}; use {', '.join(_TYPES)}")
            result[key] = names if isinstance(value, list) else names[0]
        elif key != "nullable":
            result[key] = value
    if isinstance(result.get("items"), list):  # the tuples of drafts before 2020-12
        result["prefixItems"] = result.pop("items")
        if "additionalItems" in result:
            result["items"] = result.pop("additionalItems")
    if own and closed and not _OPENS & result.keys():
        _close(result)
    return {"anyOf": [result, {"type": "null"}]} if schema.get("nullable") is True else result


def _close(schema: Schema) -> None:
    """No properties but the listed ones; one that is required and not listed may be anything."""
    properties = schema.get("properties", {})
    unlisted = [key for key in schema.get("required", ()) if key not in properties]
    schema["properties"] = {**properties, **dict.fromkeys(unlisted, True)}
    schema["additionalProperties"] = False


def _merged_references(schema: Any) -> Iterator[str]:
    """The definitions that other keywords are merged with: they cannot be closed."""
    if isinstance(schema, Mapping):
        branches = schema.get("allOf", [])
        for part in [schema, *branches] if branches or "properties" in schema else []:
            if isinstance(part, Mapping) and "$ref" in part:
                yield part["$ref"]
        for value in schema.values():
            yield from _merged_references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _merged_references(value)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def resolve(root: Schema, reference: str, tool: str) -> Any:
    """The part of `root` that a `$ref` names.

    Raises:
        ToolsetError: it points nowhere, or out of the schema.
    """
    if not reference.startswith("#"):
        raise ToolsetError(
            f"tool {tool!r}: $ref {reference!r} points out of the schema: inline it under $defs"
        )
    part: Any = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name:
            key = unquote(name).replace("~1", "/").replace("~0", "~")
            try:
                part = part[int(key)] if isinstance(part, list) else part[key]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise ToolsetError(
                    f"tool {tool!r}: $ref {reference!r} points nowhere: {key!r} is not there"
                ) from error
    return part


_EXACTLY = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
_SAYING_NOTHING = frozenset({"type", "title", "description", "default", "examples"})
_OF_STRINGS = _SAYING_NOTHING | {"enum"}
_OF_ARRAYS = _SAYING_NOTHING | {"items"}
_OF_OBJECTS = _SAYING_NOTHING | {"properties", "required", "additionalProperties"}


def is_plainly_right(value: Any, schema: Any) -> bool:
    """Whether a value satisfies a schema of the plain sort that most tools have.

    It takes a fraction of the time of jsonschema, which has to judge whatever is not plainly right.
    """
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    if kind == "object":
        known = schema.get("properties", {})
        return (
            type(value) is dict
            and schema.keys() <= _OF_OBJECTS
            and value.keys() >= {*schema.get("required", ())}
            and all(key in known and is_plainly_right(value[key], known[key]) for key in value)
        )
    if kind == "array":
        items = schema.get("items")
        return (
            type(value) is list
            and schema.keys() <= _OF_ARRAYS
            and all(is_plainly_right(item, items) for item in value)
        )
    if kind == "string":
        fits = "enum" not in schema or value in schema["enum"]
        return type(value) is str and schema.keys() <= _OF_STRINGS and fits
    return (
        isinstance(kind, str)
        and type(value) in _EXACTLY.get(kind, ())
        and schema.keys() <= _SAYING_NOTHING
    )
