"""Normalises the JSON schema of a tool's parameters.

After it, one meaning has one spelling: `nullable` is an `anyOf` with null, names of types are
JSON Schema's own, and counts are integers. What older drafts, OpenAPI and careless generators write
is put right where its meaning is plain, and each such `Correction` is recorded.

What is closed and what is open: an object that lists its properties takes no others unless it says
so (`additionalProperties`, `patternProperties`, or a reference or combination that could add some),
although JSON Schema leaves it open: a model invents arguments where it may. A nested object that
lists none takes any (`{"type": "object"}` is a free map); the arguments of a tool that lists none
are empty. `additionalProperties: true` opens any of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import unquote

import regex
from jsonschema import Draft202012Validator, FormatChecker
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
_COUNTS = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_ANNOTATIONS = ("title", "description", "examples", "$comment", "deprecated")
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


@dataclass(frozen=True)
class Correction:
    """What was put right in a tool's definition before it was used.

    Attributes:
        tool: the tool's name.
        path: where in its parameters, as a JSON pointer; empty at their top.
        keyword: the keyword concerned.
        reason: what it was, and what it counts as.
    """

    tool: str
    path: str
    keyword: str
    reason: str

    def __str__(self) -> str:
        return f"{self.tool}{self.path}: {self.keyword}: {self.reason}"


def normalise(parameters: Any, tool: str) -> tuple[Schema, tuple[Correction, ...]]:
    """The normalised copy of a tool's parameter schema, and what was put right in it; not to be
    changed, since it is shared.

    Raises:
        ToolsetError: it is no schema of an object; the message names the tool and the place.
    """
    try:
        text = json.dumps(parameters or {})
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolsetError(f"tool {tool!r}: parameters are not JSON: {error}") from error
    return _normalised(text, tool)


@lru_cache(maxsize=4096)
def _normalised(text: str, tool: str) -> tuple[Schema, tuple[Correction, ...]]:
    """Cached by content: a server sees the same tools in request after request, and checking a
    schema against its meta-schema costs more than all the rest."""
    parameters = json.loads(text)
    if not isinstance(parameters, Mapping):
        raise ToolsetError(
            f"tool {tool!r}: parameters are {type(parameters).__name__}, not a JSON schema object"
        )
    referring = '"$ref"' in text
    writer = _Normaliser(tool, set(_merged_references(parameters)) if referring else set())
    top = {"type": "object", **parameters}
    top.pop("nullable", None)
    top["type"] = top["type"] or "object"
    if isinstance(top["type"], list) and "object" in top["type"]:
        writer.correct("", "type", f"{top['type']} counts as 'object': arguments are one")
        top["type"] = "object"
    schema: Schema = writer.schema(top, "")
    if schema.get("type") != "object":
        raise ToolsetError(
            f"tool {tool!r}: parameters have type {schema.get('type')!r}: they must be an object "
            f'({{"type": "object", "properties": {{...}}}})'
        )
    if not _OPENS & schema.keys():
        _close(schema)
    for reference in _references(schema) if referring else ():
        resolve(schema, reference, tool)
    if _PATTERN.search(text) or not meta.is_valid(schema):
        try:
            # patterns were looked at already: `re`, which this would ask, does not know them all
            Draft202012Validator.check_schema(schema, format_checker=FormatChecker(()))
        except SchemaError as error:
            place = "/".join(str(part) for part in error.absolute_path) or "(top)"
            raise ToolsetError(f"tool {tool!r}: parameters at {place}: {error.message}") from error
    return schema, tuple(writer.corrections)


class _Normaliser:
    """Normalises the schemas of one tool.

    Args:
        merged: the definitions that other keywords are merged with: they are not closed.
    """

    def __init__(self, tool: str, merged: set[str]) -> None:
        self.tool = tool
        self.merged = merged
        self.corrections: list[Correction] = []

    def correct(self, path: str, keyword: str, reason: str) -> None:
        self.corrections.append(Correction(self.tool, path, keyword, reason))

    def refuse(self, path: str, wrong: str) -> ToolsetError:
        return ToolsetError(f"tool {self.tool!r}: parameters{path}: {wrong}")

    def schema(self, schema: Any, path: str, closed: bool = True) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise self.refuse(path, f"{schema!r} is no JSON schema; give an object or a boolean")
        result: Schema = {}
        own = bool(schema.get("properties"))
        for key, value in schema.items():
            if value is None and key not in ("const", "default"):
                if key not in _ANNOTATIONS:
                    self.correct(path, key, "null counts as absent")
            elif key != "nullable":
                self.keyword(result, key, value, path, own)
        for key, plain in _EXCLUSIVE.items():
            if isinstance(result.get(key), bool):
                self.exclusive(result, key, plain, path)
        if isinstance(result.get("items"), list):
            self.correct(path, "items", "a list counts as prefixItems, as in drafts before 2020-12")
            result["prefixItems"] = result.pop("items")
            if "additionalItems" in result:
                result["items"] = result.pop("additionalItems")
        if own and closed and not _OPENS & result.keys():
            _close(result)
        if schema.get("nullable") is not True:
            return result
        self.correct(path, "nullable", "true admits null, as in OpenAPI 3.0")
        return {"anyOf": [result, {"type": "null"}]}

    def keyword(self, result: Schema, key: str, value: Any, path: str, own: bool) -> None:
        """Puts one keyword into the normalised schema."""
        here = f"{path}/{key}"
        if key in _NAMED:
            result[key] = self.named(key, value, path, result)
        elif key in _MANY:
            if not isinstance(value, list):
                raise self.refuse(here, f"{value!r} is no list of schemas")
            alone = key == "prefixItems" or (key != "allOf" and not own)
            result[key] = [self.schema(v, f"{here}/{i}", alone) for i, v in enumerate(value)]
        elif key == "items" and isinstance(value, list):
            if value:
                result[key] = [self.schema(item, f"{here}/{i}") for i, item in enumerate(value)]
        elif key in _ONE or key in _CONDITIONS or key == "additionalItems":
            result[key] = self.schema(value, here, key not in _CONDITIONS)
        elif key == "type":
            self.type(result, value, path)
        elif key == "required":
            result[key] = [*result.get(key, ()), *self.required(value, path)]
        elif key == "pattern" and isinstance(value, str):
            if self.readable(value, path, regex.compile):
                result[key] = value
        elif key in _COUNTS and isinstance(value, float) and value.is_integer():
            result[key] = int(value)
        else:
            result[key] = value

    def named(self, key: str, value: Any, path: str, result: Schema) -> Schema:
        """Schemas by name."""
        here = f"{path}/{key}"
        if value == []:
            self.correct(path, key, "an empty list counts as an empty object")
            value = {}
        if not isinstance(value, Mapping):
            raise self.refuse(here, f"{value!r} is no object of schemas by name")
        schemas: Schema = {}
        for name, inner in value.items():
            # jsonschema looks keys up with Python's own `re`
            if key == "patternProperties" and not self.readable(name, path, re.compile):
                continue
            if key == "properties" and isinstance(inner, dict):
                said = inner.get("required")
                if isinstance(said, bool):  # draft 3
                    inner = {each: inner[each] for each in inner if each != "required"}
                    if said:
                        self.correct(path, "required", f"{name!r} says it of itself, as in draft 3")
                        result["required"] = [*result.get("required", ()), name]
            open_ = f"#/{key}/{name}" in self.merged
            schemas[name] = self.schema(inner, f"{here}/{name}", not open_)
        return schemas

    def type(self, result: Schema, value: Any, path: str) -> None:
        names = value if isinstance(value, list) else [value]
        known = []
        for name in names:
            spelled = name if name in (*_TYPES, *ALIASES) else str(name).lower()
            if spelled == "any":
                self.correct(path, "type", f"{name!r} counts as any value")
                return
            kind = ALIASES.get(spelled, spelled)
            if not isinstance(name, str) or kind not in _TYPES:
                raise self.refuse(f"{path}/type", f"unknown type {name!r}; use {', '.join(_TYPES)}")
            if kind != name:
                self.correct(path, "type", f"{name!r} counts as {kind!r}")
            known.append(kind)
        result["type"] = list(dict.fromkeys(known)) if isinstance(value, list) else known[0]

    def required(self, value: Any, path: str) -> list[str]:
        """The names that `required` lists, each once."""
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.refuse(f"{path}/required", f"{value!r} is no list of names")
        return list(dict.fromkeys(value))

    def readable(self, pattern: str, path: str, compile: Callable[[str], Any]) -> bool:
        """Whether values can be held to a regular expression."""
        try:
            compile(pattern)
        except (re.error, regex.error) as error:
            self.correct(path, "pattern", f"{pattern!r} cannot be read ({error}), and is left out")
            return False
        return True

    def exclusive(self, result: Schema, key: str, plain: str, path: str) -> None:
        """A bound as draft 4 has it: whether the other one is exclusive."""
        if result.pop(key) and plain in result:
            self.correct(path, key, f"true makes {plain} exclusive, as in draft 4")
            result[key] = result.pop(plain)
        else:
            self.correct(path, key, f"a boolean without a {plain} says nothing")


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
        branches = branches if isinstance(branches, list) else []
        for part in [schema, *branches] if branches or "properties" in schema else []:
            if isinstance(part, Mapping) and isinstance(part.get("$ref"), str):
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
