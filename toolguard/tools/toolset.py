"""The tools offered in one request, validated and normalised."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import isfinite
from typing import Any, TypeAlias, cast

import jsonschema
import regex
from jsonschema.protocols import Validator

from ..errors import ToolsetError
from .schemas import Correction, Schema, is_plainly_right, normalise, resolve

ToolLike: TypeAlias = "Mapping[str, Any] | str | Callable[..., Any] | type | Tool"


class Arguments(dict[str, Any]):
    """An object that remembers which keys it was given more than once.

    Validation refuses those of them that the schema declares.
    """

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        counts = Counter[str]()
        for key, value in pairs:
            self[key] = value
            counts[key] += 1
        self.repeated = frozenset(key for key, count in counts.items() if count > 1)


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: the name that a call uses.
        definition: the tool as it was given, OpenAI style; chat templates render this.
        parameters: its normalised parameter schema; masks and validation use this.
        corrections: what was put right in that schema.
    """

    name: str
    definition: Mapping[str, Any] = field(hash=False, repr=False)
    parameters: Schema = field(hash=False, repr=False)
    corrections: tuple[Correction, ...] = ()

    @cached_property
    def keys(self) -> frozenset[str]:
        """The names of the arguments that its schema declares, in any of its parts."""
        found: set[str] = set()
        agenda, seen = [self.parameters], set[str]()
        while agenda:
            schema = agenda.pop()
            if not isinstance(schema, Mapping):
                continue
            found |= {*schema.get("properties", {}), *schema.get("required", ())}
            for keyword in ("allOf", "anyOf", "oneOf"):
                agenda += schema.get(keyword, ())
            reference = schema.get("$ref")
            if reference is not None and reference not in seen:
                seen.add(reference)
                agenda.append(resolve(self.parameters, reference, self.name))
        return frozenset(found)

    @property
    def is_open(self) -> bool:
        """Whether it takes arguments that its schema does not declare."""
        others = self.parameters.get("additionalProperties", True) is not False
        return others or "patternProperties" in self.parameters

    def accepts(self, argument: str) -> Callable[[Any], bool]:
        """Whether a value satisfies the schema of one argument."""
        known = self.parameters.get("properties", {})
        return self.valid(known.get(argument, self.parameters.get("additionalProperties", True)))

    def valid(self, schema: Any) -> Callable[[Any], bool]:
        """Whether a value satisfies a schema that is part of the tool's."""
        whole: Validator = _Validator(self.parameters)
        return whole.evolve(schema=schema).is_valid


@dataclass(frozen=True, eq=False)
class Toolset:
    """The tools offered in one request. Equal toolsets have equal `fingerprint`s."""

    tools: tuple[Tool, ...]

    @staticmethod
    def of(tools: Toolset | str | Iterable[ToolLike]) -> Toolset:
        """A toolset from OpenAI-style dicts, JSON text, pydantic models or annotated callables.

        Tools as the Model Context Protocol (`inputSchema`) and Anthropic (`input_schema`) list
        them are taken, too. What is closed and what is open: see `toolguard.tools.schemas`.

        Raises:
            ToolsetError: a tool is malformed, or two tools share a name.
        """
        if isinstance(tools, Toolset):
            return tools
        if isinstance(tools, str):
            tools = cast(Iterable[ToolLike], _from_json(tools, "the toolset"))
        if isinstance(tools, Mapping) or callable(tools):
            raise ToolsetError("a toolset is a list of tools: put the single tool into a list")
        made = tuple(_tool(tool, index) for index, tool in enumerate(tools))
        for name, count in Counter(tool.name for tool in made).items():
            if count > 1:
                raise ToolsetError(f"two tools are called {name!r}: rename one or drop it")
        return Toolset(made)

    def __len__(self) -> int:
        return len(self.tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self.tools)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Toolset) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names and normalised parameters; descriptions do not count."""
        content = [[tool.name, tool.parameters] for tool in self.tools]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tools' names, in the order given."""
        return tuple(tool.name for tool in self.tools)

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """What was put right in the tools' schemas."""
        return tuple(correction for tool in self.tools for correction in tool.corrections)

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """The tools OpenAI style, as chat templates take them."""
        return [dict(tool.definition) for tool in self.tools]

    def __getitem__(self, name: str) -> Tool:
        """The tool of that name.

        Raises:
            KeyError: none of them has it.
        """
        found = self.only(name).tools
        if not found:
            raise KeyError(name)
        return found[0]

    def only(self, name: str) -> Toolset:
        """The toolset with that one tool."""
        return Toolset(tuple(tool for tool in self.tools if tool.name == name))

    def any_named(self, text: str) -> bool:
        """Whether a text holds the name of any of them: without one it makes no call."""
        return any(map(text.__contains__, self.names))

    def errors(self, name: str, arguments: Any) -> list[str]:
        """What is wrong with a call's arguments; empty if they satisfy the tool's schema.

        `name` must be one of `names`. Repeated keys are seen if `arguments` came from `parse_json`.
        """
        validator = self._validators[name]
        if is_plainly_right(arguments, validator.schema):
            return []
        return [
            f"{error.json_path.replace('$', 'arguments', 1)}: {error.message}"
            for error in validator.iter_errors(arguments)
        ]

    def misfits(self, name: str, arguments: Any) -> list[Any]:
        """The values in a call's arguments that its tool's schema refuses."""
        return [error.instance for error in self._validators[name].iter_errors(arguments)]

    def accepts(self, name: str, arguments: Any) -> bool:
        """Whether a call's arguments satisfy the schema of one of the `names`."""
        validator = self._validators[name]
        return is_plainly_right(arguments, validator.schema) or validator.is_valid(arguments)

    @cached_property
    def _validators(self) -> dict[str, Validator]:
        return {tool.name: _Validator(tool.parameters) for tool in self.tools}


def parse_json(text: str) -> Any:
    """JSON text as Python values; objects are `Arguments`, which keep their repeated keys.

    Raises:
        ValueError: it is no JSON, a number is out of range, or it is nested too deeply.
    """

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, object_pairs_hook=Arguments, parse_constant=reject)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _properties(
    validator: Validator, properties: Mapping[str, Any], instance: Any, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's `properties`, and each at most once."""
    yield from _Draft.VALIDATORS["properties"](validator, properties, instance, schema)
    if isinstance(instance, Arguments):
        for key in sorted(instance.repeated & properties.keys()):
            yield jsonschema.ValidationError(f"{key!r} is given more than once")


def _pattern(
    validator: Validator, pattern: str, instance: Any, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's `pattern`, with what Python's own `re` lacks (`\\p{L}`)."""
    if isinstance(instance, str) and not regex.search(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _multiple_of(
    validator: Validator, unit: float, instance: Any, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's `multipleOf`, of the decimals that are written: as floats 19.99 is no multiple
    of 0.01."""
    if not validator.is_type(instance, "number"):
        return
    if not isfinite(instance) or Fraction(str(instance)) % Fraction(str(unit)):
        yield jsonschema.ValidationError(f"{instance!r} is not a multiple of {unit!r}")


_Draft = jsonschema.Draft202012Validator
_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    _Draft, {"properties": _properties, "pattern": _pattern, "multipleOf": _multiple_of}
)


# What the Model Context Protocol allows, in any script, and C++'s and Rust's `ns::tool`.
_NAME = re.compile(r"[\w./-]+(?:::[\w./-]+){0,2}")

_PARAMETERS = ("parameters", "inputSchema", "input_schema")
"""What OpenAI, the Model Context Protocol and Anthropic call the schema of a tool's arguments."""


def _from_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ToolsetError(f"{what} is text, but no JSON: {error}") from error


def _tool(tool: ToolLike, index: int) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, str):
        tool = cast("Mapping[str, Any]", _from_json(tool, f"tool {index}"))
    if inspect.isclass(tool) and hasattr(tool, "model_json_schema"):
        tool = {
            "name": tool.__name__,
            "description": inspect.getdoc(tool) or "",
            "parameters": tool.model_json_schema(),
        }
    elif callable(tool):
        tool = _from_callable(tool)
    if not isinstance(tool, Mapping):
        raise ToolsetError(
            f"tool {index} is {type(tool).__name__}: give an OpenAI-style dict, its JSON text, "
            "a pydantic model or an annotated function"
        )
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        raise ToolsetError(f"tool {index}: 'function' is {type(function).__name__}, not an object")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ToolsetError(
            f"tool {index} has no usable name: {name!r}: use letters, digits, '_', '-', '.', '/'"
        )
    schemas = [function[key] for key in _PARAMETERS if function.get(key) is not None]
    if len(schemas) > 1:
        raise ToolsetError(
            f"tool {name!r} has several schemas of its arguments: keep one of "
            f"{', '.join(key for key in _PARAMETERS if key in function)}"
        )
    kept = {k: v for k, v in function.items() if k not in _PARAMETERS and v is not None}
    definition = {**kept, **({"parameters": schemas[0]} if schemas else {})}
    parameters, corrections = normalise(definition.get("parameters"), name)
    return Tool(name, {"type": "function", "function": definition}, parameters, corrections)


def _from_callable(function: Callable[..., Any]) -> Mapping[str, Any]:
    from transformers.utils.chat_template_utils import get_json_schema  # heavy, for callables alone

    try:
        return cast("Mapping[str, Any]", get_json_schema(function))
    except Exception as error:  # transformers raises several kinds, all about the signature
        name = getattr(function, "__name__", repr(function))
        raise ToolsetError(
            f"cannot describe the function {name!r}: {error}. It needs type hints and a "
            "Google-style docstring with an Args section"
        ) from error
