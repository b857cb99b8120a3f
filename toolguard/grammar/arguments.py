"""From a tool's parameter schema to the grammar of its arguments, in any dialect.

Keys stand in any order, each at most once, the required ones present. What cannot be said in a
grammar is recorded as a `Relaxation`, never dropped in silence: finished calls are validated
against the whole schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

from ..errors import ToolsetError
from ..formats.nodes import (
    EMPTY,
    MOST_COUNTED,
    NEVER,
    Alt,
    Literal,
    Member,
    Members,
    Node,
    Pattern,
    Ref,
    Repeat,
    Scalar,
    Seq,
    optional,
)
from ..tools.schemas import Schema, is_plainly_right, resolve
from ..tools.toolset import Tool
from .dialects import Dialect, JsonDialect, RefusedError
from .engine import refusal
from .numbers import expressions, range_of

DEPTH = 24
"""How many references and combinations may nest in a mask: recursion ends there."""

OPEN_DEPTH = 6
"""How deep values without a schema may nest in a mask."""

_STRING = ("minLength", "maxLength", "pattern")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_UNENFORCED = (
    "not",
    "if",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "contains",
    "uniqueItems",
    "unevaluatedItems",
)
_ANNOTATIONS = ("title", "description", "default", "examples", "$defs", "definitions", "$schema")
_TYPES = ("null", "integer", "number", "boolean", "object", "array", "string")
_SCALARS = ("string", "number", "boolean", "null")
_SCIENTIFIC = "with an exponent the mask has one digit before the point, as in 1.5e7"
_PLAINLY = "the mask has plain decimals alone, without zeros to spare"
_IMPLIED = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": _STRING,
    "number": _NUMBER,
}


@dataclass(frozen=True)
class Relaxation:
    """A part of a tool's schema that the mask does not enforce, or not in every spelling that
    validation takes; validation still does. What is said of no `tool` holds for all."""

    tool: str
    path: str
    keyword: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.tool or 'all tools'}{self.path}: {self.keyword} is not held to as validation "
            f"holds it: "
            f"{self.reason}"
        )


PLAINLY = Relaxation(
    "",
    "",
    "spelling",
    "the mask has keys and constants without needless escapes, zeros and exponents, and integers "
    "without needless fractions and negative exponents",
)
"""What holds for every tool: a mask leads nobody into spellings that no program writes."""
ALL = frozenset(_TYPES)
UNWRITABLE = "properties"
"""The keyword of a relaxation that leaves out an argument whose name cannot be written."""


MOST_WRITTEN = 80_000
"""How many values may be written for the tools of a request, every one by its whole schema, before
the others are loosened: what references make of a schema cannot be told from its size."""


class TooLargeError(Exception):
    """The schemas come to more values than `MOST_WRITTEN`."""


class MadeRules(dict[str, Node]):
    """The rules that arguments of all tools are made of: those of equal objects and arrays are one,
    since everything takes its time for each."""

    def __init__(self) -> None:
        self._names: dict[Node, str] = {}
        self.room: float = MOST_WRITTEN

    def take(self) -> None:
        """Makes room for one more value.

        Raises:
            TooLargeError: there is none.
        """
        self.room -= 1
        if self.room < 0:
            raise TooLargeError

    def shared(self, node: Node) -> Node:
        """The rule of such a node."""
        if node == NEVER:
            return node
        name = self._names.setdefault(node, f"value_{len(self._names)}")
        self[name] = node
        return Ref(name)


class ArgumentRules:
    """The rules of one tool's arguments, in one dialect.

    Args:
        tool: whose arguments.
        name: what the names of the rules begin with.
        dialect: how values are written.
        kinds: the JSON types that a value itself, not what is inside it, may have.
        rules: those made so far, which these are put beside; tools may share them.

    Attributes:
        rules: the rules made so far.
        relaxations: what they do not enforce.
    """

    def __init__(
        self,
        tool: Tool,
        name: str,
        dialect: Dialect | None = None,
        kinds: frozenset[str] = ALL,
        rules: MadeRules | None = None,
    ) -> None:
        self.tool = tool
        self.name = name
        self.dialect = dialect = dialect or JsonDialect()
        self.kinds = kinds
        self.rules = MadeRules() if rules is None else rules
        self.relaxations: list[Relaxation] = []
        self.targets: dict[str, int] = {}
        self.comma = dialect.comma

    def properties(self) -> tuple[dict[str, Schema], list[str], Any]:
        """The arguments for themselves: their schemas, the required ones, and the schema of any
        others (False: there are none)."""
        schema = self.expanded(self.tool.parameters, "")
        for part in schema.get("allOf", ()):
            schema = self.merged({k: v for k, v in schema.items() if k != "allOf"}, part, "")
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                self.relax("", keyword, "the arguments are written one by one")
                for part in schema[keyword]:
                    more = self.expanded(part, "").get("properties", {})
                    schema = {**schema, "properties": {**more, **schema.get("properties", {})}}
        self.relax_unenforced(schema, "")
        required = schema.get("required", [])
        other = "patternProperties" in schema or schema.get("additionalProperties", True)
        properties = {**dict.fromkeys(required, other), **schema.get("properties", {})}
        for keyword in ("minProperties", "maxProperties"):
            if keyword in schema:
                self.relax("", keyword, "the arguments are written one by one")
        return properties, required, other

    def inside(self) -> ArgumentRules:
        """The same without limits on the type, for what is inside objects and arrays."""
        if self.kinds == ALL:
            return self
        other = copy(self)
        other.kinds, other.name = ALL, f"{self.name}_in"
        return other

    def relax(self, path: str, keyword: str, reason: str) -> None:
        found = Relaxation(self.tool.name, path, keyword, reason)
        if found not in self.relaxations:
            self.relaxations.append(found)

    def relax_unenforced(self, schema: Schema, path: str) -> None:
        """Records the keywords that no grammar says, where they say something."""
        for keyword in _UNENFORCED:
            nothing = keyword.startswith("unevaluated")  # true allows all; elsewhere false does
            if schema.get(keyword, nothing) not in (nothing, {}, []):
                self.relax(path, keyword, "it cannot be said in a grammar")
        if "format" in schema:
            self.relax(path, "format", "an annotation, as JSON Schema has it: no validator asks")

    def relax_uncounted(self, members: Members, path: str) -> None:
        """Records that a mask does not count all members of a large object."""
        if len(members.counted) < len(members.members):
            reason = (
                f"of more than {MOST_COUNTED} properties, the mask counts the required ones alone"
            )
            self.relax(path, "maxProperties", reason)

    def value(self, schema: Any, path: str, stack: tuple[str, ...]) -> Node:
        """A value under a schema; `stack` holds the references that led here."""
        self.rules.take()
        if isinstance(schema, bool):
            return self.anything(OPEN_DEPTH) if schema else NEVER
        if self.kinds != ALL:
            schema = self.expanded(schema, path)
        self.relax_unenforced(schema, path)
        if "$ref" in schema:
            return self.reference(schema, path, stack)
        if "const" in schema:
            return self.constant(schema["const"])
        if "enum" in schema:
            return self.enumeration(schema, path)
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword in schema:
                return self.combined(schema, keyword, path, stack)
        kinds = schema.get("type") or next(
            (kind for kind, words in _IMPLIED.items() if any(word in schema for word in words)),
            None,
        )
        if kinds is None:
            return self.anything(OPEN_DEPTH)
        if isinstance(kinds, list):
            kinds = [
                k for k in _TYPES if k in kinds and (k, "number" in kinds) != ("integer", True)
            ]
            return Alt(tuple(self.typed(kind, schema, path, stack) for kind in kinds))
        return self.typed(kinds, schema, path, stack)

    def expanded(self, schema: Schema, path: str) -> Schema:
        """The schema with its own reference put in: a limit on the type is no rule of its own."""
        for _ in range(DEPTH):
            if "$ref" not in schema:
                break
            target = resolve(self.tool.parameters, schema["$ref"], self.tool.name)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = self.merged(rest, target, path)
        return schema

    def typed(self, kind: str, schema: Schema, path: str, stack: tuple[str, ...]) -> Node:
        if kind not in self.kinds or _is_empty(kind, schema):
            return NEVER
        match kind:
            case "object":
                return self.rules.shared(self.inside().object(schema, path, stack))
            case "array":
                return self.rules.shared(self.inside().array(schema, path, stack))
            case "string":
                return self.bounded(self.dialect.string, _STRING, schema, path)
            case "integer" | "number":
                plain = self.dialect.integer if kind == "integer" else self.dialect.number
                if "multipleOf" in schema:
                    self.relax(path, "multipleOf", _PLAINLY)
                elif bounds := [keyword for keyword in _NUMBER if schema.get(keyword)]:
                    self.relax(path, "/".join(bounds), _SCIENTIFIC)
                return self.bounded(partial(_number, kind, plain), _NUMBER, schema, path)
            case "boolean":
                return Alt(tuple(self.constant(value) for value in (True, False)))
            case _:
                return self.constant(None)

    def bounded(
        self,
        write: Callable[[Mapping[str, Any]], Node],
        keywords: tuple[str, ...],
        schema: Schema,
        path: str,
    ) -> Node:
        """A string or number under those of its constraints that can be enforced."""
        bounds = {key: schema[key] for key in keywords if key in schema}
        while True:
            try:
                node = self.dialect.scalar(write(bounds))
                for keyword in self.dialect.counted_in_part & bounds.keys():
                    self.relax(path, keyword, "a string without quotes is counted up to its end")
                if "pattern" in bounds and self.dialect.escapes:
                    self.relax(path, "pattern", "the mask escapes no character that can do without")
                return node
            except RefusedError as refused:
                keyword = "pattern" if "pattern" in bounds else [*bounds][-1]
                self.relax(path, keyword, str(refused))
                del bounds[keyword]

    def object(self, schema: Schema, path: str, stack: tuple[str, ...]) -> Node:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = schema.get("required", [])
        # A key that matches a pattern is no other property; which value it takes is left open.
        more = "patternProperties" in schema or schema.get("additionalProperties", True)
        members = [
            self.member(
                key, self.value(properties.get(key, more), f"{path}/{key}", stack), f"{path}/{key}"
            )
            for key in dict.fromkeys([*properties, *required])
        ]
        extra = None
        if more is not False:
            value = self.value(more, f"{path}/*", stack)
            known = frozenset(properties) | frozenset(required)
            extra = self.dialect.other_member(known, value)
        low, high = schema.get("minProperties", 0), schema.get("maxProperties")
        if extra is not None and (low > len(required) or high is not None):
            self.relax(path, "minProperties/maxProperties", "other properties are allowed")
        keys = list(dict.fromkeys([*properties, *required]))
        inside = Members(
            tuple(Member(m, k in required) for m, k in zip(members, keys, strict=True)),
            self.comma,
            extra,
            low,
            high,
        )
        self.relax_uncounted(inside, path)
        if high == 0 or not (members or extra):
            return self.dialect.object(EMPTY) if not required else NEVER
        return self.dialect.object(inside, or_none=not (required or low))

    def member(self, key: str, value: Node, path: str) -> Node:
        if value == NEVER:
            return NEVER
        try:
            return self.dialect.member(key, value)
        except RefusedError as refused:
            self.relax(path, UNWRITABLE, str(refused))
            return NEVER

    def array(self, schema: Schema, path: str, stack: tuple[str, ...]) -> Node:
        first = [
            self.item(self.value(item, f"{path}/{i}", stack))
            for i, item in enumerate(schema.get("prefixItems", []))
        ]
        item = self.item(self.value(schema.get("items", True), f"{path}/[]", stack))
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if high == 0:
            return self.dialect.array(EMPTY) if low == 0 else NEVER
        return self.dialect.array(self.items(first, item, low, high), or_none=low == 0)

    def item(self, value: Node) -> Node:
        return self.dialect.item(value) if value != NEVER else NEVER

    def items(self, first: list[Node], item: Node, low: int, high: int | None) -> Node:
        """One item or more, `first` ones by their place."""
        if not first:
            further = Seq((self.comma, item))
            rest = Repeat(further, max(low - 1, 0), None if high is None else high - 1)
            return item if high == 1 else Seq((item, rest))
        tail: Node = EMPTY
        count = len(first)
        if high is None or high > count:
            more = None if high is None else high - count
            tail = Repeat(Seq((self.comma, item)), max(low - count, 0), more)
        for index in range(min(count, high or count) - 1, 0, -1):
            tail = Seq((self.comma, first[index], tail))
            tail = tail if index < low else optional(tail)
        return Seq((first[0], tail))

    def combined(self, schema: Schema, keyword: str, path: str, stack: tuple[str, ...]) -> Node:
        if len(stack) >= DEPTH:
            return NEVER
        base = {k: v for k, v in schema.items() if k not in (keyword, *_ANNOTATIONS)}
        stack = (*stack, keyword)
        if keyword == "allOf":
            for part in schema[keyword]:
                base = self.merged(base, part, path)
            return self.value(base, path, stack)
        if keyword == "oneOf":
            self.relax(path, "oneOf", "the mask takes it as anyOf")
        parts = [self.merged(base, part, path) for part in schema[keyword]]
        return Alt(tuple(dict.fromkeys(self.value(part, path, stack) for part in parts)))

    def merged(self, base: Schema, part: Any, path: str) -> Any:
        """Both schemas at once, as far as keywords can be put side by side."""
        if isinstance(part, bool):
            return base if part else False
        if base and "$ref" in part:
            seen = {part["$ref"]}
            target = resolve(self.tool.parameters, part["$ref"], self.tool.name)
            while isinstance(target, Mapping) and "$ref" in target and target["$ref"] not in seen:
                seen.add(target["$ref"])
                target = resolve(self.tool.parameters, target["$ref"], self.tool.name)
            part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
        result = dict(base)
        for key, value in part.items():
            if key not in base or base[key] == value:
                result[key] = value
            elif key == "properties":
                result[key] = {
                    **base[key],
                    **{
                        name: self.merged(base[key][name], inner, f"{path}/{name}")
                        if name in base[key] and isinstance(base[key][name], dict)
                        else inner
                        for name, inner in value.items()
                    },
                }
            elif key == "required":
                result[key] = list(dict.fromkeys([*base[key], *value]))
            elif key in ("minLength", "minItems", "minimum", "minProperties"):
                result[key] = max(base[key], value)
            elif key in ("maxLength", "maxItems", "maximum", "maxProperties"):
                result[key] = min(base[key], value)
            elif key == "type":
                ours = base[key] if isinstance(base[key], list) else [base[key]]
                theirs = value if isinstance(value, list) else [value]
                common = [kind for kind in ours if kind in theirs]
                if "integer" in ours + theirs and "number" in ours + theirs:
                    common = [*dict.fromkeys([*common, "integer"])]
                if not common:
                    return False
                result[key] = common[0] if len(common) == 1 else common
            elif key not in _ANNOTATIONS:
                self.relax(path, key, "two schemas that apply at once both give it")
                result[key] = value
        return result

    def reference(self, schema: Schema, path: str, stack: tuple[str, ...]) -> Node:
        target = schema["$ref"]
        if len(stack) >= DEPTH:
            return NEVER
        rest = {key: value for key, value in schema.items() if key not in ("$ref", *_ANNOTATIONS)}
        if rest:
            return self.value(self.merged(rest, {"$ref": target}, path), path, stack)
        name = f"{self.name}_ref{len(stack)}_{self.index(target)}"
        if name not in self.rules:
            self.rules[name] = NEVER  # holds the place while the rule refers to itself
            part = resolve(self.tool.parameters, target, self.tool.name)
            self.rules[name] = self.value(part, target.removeprefix("#"), (*stack, target))
        return Ref(name)

    def index(self, target: str) -> int:
        """A number for a reference, since rule names cannot hold its text."""
        return self.targets.setdefault(target, len(self.targets))

    def enumeration(self, schema: Schema, path: str) -> Node:
        keywords = {key: schema[key] for key in ("type", *_STRING, *_NUMBER) if key in schema}
        values = schema["enum"]
        if keywords and not all(is_plainly_right(value, keywords) for value in values):
            values = list(filter(self.tool.valid(keywords), values))
        if not values:
            raise ToolsetError(
                f"tool {self.tool.name!r}: {path or '/'}: no value of its enum has its type"
            )
        return Alt(tuple(dict.fromkeys(self.constant(value) for value in values)))

    def constant(self, value: Any) -> Node:
        """Exactly this value, however the dialect may spell it."""
        if kind_of(value) not in self.kinds:
            return NEVER
        if self.kinds != ALL:
            return self.inside().constant(value)
        match value:
            case dict():
                members = tuple(
                    Member(self.member(key, self.constant(inner), f"/{key}"), True)
                    for key, inner in value.items()
                )
                return self.dialect.object(Members(members, self.comma) if members else EMPTY)
            case list():
                items: list[Node] = []
                for inner in value:
                    items += [self.item(self.constant(inner)), self.comma]
                return self.dialect.array(Seq(tuple(items[:-1])))
            case _:
                return self.dialect.scalar(self.scalar(value))

    def scalar(self, value: str | float | None) -> Node:
        match value:
            case str():
                return self.dialect.text(value)
            case bool():
                return Literal(self.dialect.true if value else self.dialect.false)
            case None:
                return Literal(self.dialect.null)
            case float() if value.is_integer():
                return Alt((Literal(json.dumps(value)), Literal(str(int(value)))))
            case _:
                return Literal(json.dumps(value))

    def anything(self, depth: int) -> Node:
        """Any value."""
        if self.kinds != ALL:
            # A string without quotes ends at what follows it: it cannot be a rule of its own.
            return self._anything(depth)
        name = f"any_{type(self.dialect).__name__.lower()}_{depth}"  # the same for all tools
        if name not in self.rules:
            self.rules[name] = self._anything(depth)
        return Ref(name)

    def _anything(self, depth: int) -> Node:
        kinds = [kind for kind in _SCALARS if kind in self.kinds]
        options = [self.typed(kind, {}, "", ()) for kind in kinds]
        if depth and {"object", "array"} <= self.kinds:
            inner = self.inside().anything(depth - 1)
            member = self.dialect.other_member(frozenset(), inner)
            items = self.items([], self.item(inner), 0, None)
            options.append(self.dialect.object(Members((), self.comma, member), or_none=True))
            options.append(self.dialect.array(items, or_none=True))
        return Alt(tuple(options))


def kind_of(value: Any) -> str:
    """The JSON type of a value; `number` also for integers."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
        case _:
            return "number"


_COUNTED = {
    "object": ("minProperties", "maxProperties"),
    "array": ("minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
}


def _is_empty(kind: str, schema: Schema) -> bool:
    """Whether the bounds of a schema leave no value of that type."""
    if kind in _COUNTED:
        low, high = _COUNTED[kind]
        return bool(schema.get(low, 0) > schema.get(high, inf))
    return kind in ("integer", "number") and range_of(kind, schema).is_empty


def _number(kind: str, plain: Pattern, bounds: Mapping[str, Any]) -> Node:
    """A number: a terminal of ours, or the engine's where it may be a multiple alone."""
    if "multipleOf" in bounds:
        schema = json.dumps({"type": kind, **bounds})
        if reason := refusal(f"%json {schema}"):
            raise RefusedError(reason.splitlines()[0])
        return Scalar(schema)
    found = expressions(kind, range_of(kind, bounds))
    if not found:
        return plain
    return Pattern(plain.regex, found[0]) if len(found) == 1 else Pattern(found[0], found[1])
