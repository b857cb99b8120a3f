"""Whether mask, reader and jsonschema say the same of a turn.

Nothing excuses a difference but what the product itself records at the very place: the relaxations
of a guard's mask, and the corrections of a tool's definition.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Tool, Toolset, Turn
from toolguard.parsing.turn import OF_TEXT
from toolguard.tools.schemas import resolve

_SPELLED = ("pattern", "minLength", "maxLength", "multipleOf", "minimum", "maximum")
NARROWER = frozenset({*_SPELLED, "exclusiveMinimum", "exclusiveMaximum", "enum", "const"})
"""The keywords under which a mask may take fewer spellings than validation does, and records it."""


class Unjudged(Toolset):
    """Tools that take whatever a call says."""

    def errors(self, name: str, arguments: Any) -> list[str]:
        return []


def verdict(
    guard: Guard,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    meant: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What is said of a turn: whether it is `legal` to the reader, and the `difference` there is,
    or the `recorded` one, by its kind.

    Args:
        meant: the arguments that its call was written from, perhaps wrong ones.
    """
    turn, admitted = guard.read(ids), admits(guard, ids)
    said = by_text(guard, turn.raw, Unjudged(guard.toolset.tools))
    found = [
        (call.name, error)
        for call in said.calls
        for error in Draft202012Validator(guard.toolset[call.name].parameters).iter_errors(
            call.arguments
        )
    ]
    kinds = sorted({fault.kind for fault in turn.faults})
    keywords = ", ".join(sorted({str(error.validator) for _, error in found}))
    result: dict[str, Any] = {"legal": not kinds}
    if calls(by_text(guard, turn.raw, guard.toolset)) != calls(turn):
        result["difference"] = "ids and text read as different calls"
    elif bool(kinds) != bool(said.faults or found):
        result["difference"] = f"reader {kinds}, jsonschema [{keywords}]"
    elif meant is not None and not _is_said(meant, said, guard):
        result["difference"] = f"what is read is not what was written: {kinds}"
    elif admitted and not OF_TEXT.issuperset(kinds):
        recorded = not said.faults and all(is_recorded(guard, *each) for each in found)
        result["recorded" if recorded else "difference"] = f"mask admits: {keywords or kinds}"
    elif not admitted and not kinds:
        recorded = admits(spelled_freely(guard, tokenizer), ids)
        result["recorded" if recorded else "difference"] = "mask refuses"
    if "difference" in result:
        faults = [f"{fault.kind}: {fault.message}" for fault in turn.faults]
        result |= {"ids": ids, "raw": turn.raw, "admitted": admitted, "faults": faults}
        result |= {"said": calls(said), "jsonschema": [error.message for _, error in found]}
    return result


def admits(guard: Guard, ids: list[int]) -> bool:
    """Whether the mask admits a turn; control tokens that are words are taken as such."""
    state = guard.start(10_000)
    return all(map(state.retrace, ids)) and state.done and not state.matcher.broken


def by_text(guard: Guard, text: str, toolset: Toolset) -> Turn:
    return toolguard.read_turn(text, guard.format, toolset, opened=guard.reasoning == "open")


def calls(turn: Turn) -> list[tuple[str, str]]:
    """The calls of a turn, 1 and 1.0 and true apart."""
    return [(call.name, json.dumps(call.arguments)) for call in turn.calls]


def of_definition(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Where a tool's schema as it came takes arguments that the normalised one refuses, or the
    other way round; undeclared members aside, which `toolguard.tools.schemas` closes."""
    try:
        came = Draft202012Validator(tool.definition["function"].get("parameters") or {})
        valid = came.is_valid(arguments)
    except (SchemaError, TypeError, AttributeError) as error:
        return {} if tool.corrections else {"difference": f"no schema, uncorrected: {error}"}
    errors = [*Draft202012Validator(tool.parameters).iter_errors(arguments)]
    if valid == (not errors) or all(e.validator == "additionalProperties" for e in _leaves(errors)):
        return {}
    kind = "the schema as it came says otherwise"
    return {"recorded" if tool.corrections else "difference": kind}


def _leaves(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    for error in errors:
        yield from _leaves(error.context) if error.context else (error,)


def _is_said(meant: Mapping[str, Any], said: Turn, guard: Guard) -> bool:
    """Whether a call says the arguments that it was written from; on a wire that does not tell
    strings from other values, as the schema prefers them."""
    if len(said.calls) != 1:
        return False
    name, arguments = said.calls[0].name, said.calls[0].arguments
    first, other = ([{"name": name, "arguments": {"a": value}}] for value in (7, "7"))
    if toolguard.render(guard.format, first) == toolguard.render(guard.format, other):
        tool = guard.toolset[name]
        meant = {key: _untold(value, tool.accepts(key)) for key, value in meant.items()}
    return json.dumps(arguments) == json.dumps(meant)


def _untold(value: Any, valid: Callable[[Any], bool]) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for read in (json.loads, ast.literal_eval):
        try:
            other = read(text)
        except (ValueError, SyntaxError):
            continue
        return text if isinstance(other, str) or (valid(text) and not valid(other)) else other
    return text


def is_recorded(guard: Guard, name: str, error: ValidationError) -> bool:
    """Whether a relaxation records what an error is about: its keyword, or one around it, in its
    place; of alternatives, all that keeps the arguments from one of them."""
    recorded = _recorded(guard, name)
    parameters: Any = guard.toolset[name].parameters
    schema, places, steps = parameters, {""}, [*map(str, error.absolute_schema_path)]
    while steps:
        while "$ref" in schema and steps[0] not in schema:
            places.add(schema["$ref"].removeprefix("#"))
            schema = resolve(parameters, schema["$ref"], name)
        step = steps.pop(0)
        if any((place, step) in recorded for place in places):
            return True
        if step == "oneOf" and not (steps or error.context):  # several apply
            return any((place, AS_ANY) in recorded for place in places)
        schema = schema[step]
        if isinstance(schema, list) and steps:
            index = steps.pop(0)
            schema = schema[int(index)]
            places = {f"{place}/{index}" for place in places} if step == "prefixItems" else places
        elif step in ("properties", "patternProperties") and steps:
            key = steps.pop(0)
            schema = schema[key]
            places = {f"{place}/{key if step == 'properties' else '*'}" for place in places}
        elif step in _INSIDE:
            places = {f"{place}/{_INSIDE[step]}" for place in places}
    options = groupby(error.context or (), key=lambda each: each.schema_path[0])
    return any(all(is_recorded(guard, name, each) for each in option) for _, option in options)


AS_ANY = "the mask takes it as anyOf"
_INSIDE = {"items": "[]", "additionalProperties": "*"}


def _recorded(guard: Guard, name: str) -> set[tuple[str, str]]:
    """The places and keywords that relaxations record of a tool."""
    return {
        (it.path, AS_ANY if it.reason == AS_ANY else keyword)
        for it in guard.relaxations
        if it.tool == name
        for keyword in it.keyword.split("/")
    }


def spelled_freely(guard: Guard, tokenizer: PreTrainedTokenizerBase) -> Guard:
    """The guard of the same tools without the keywords under which its mask says to be narrower."""
    tools = [
        {
            "name": tool.name,
            "parameters": _without(tool.parameters, "", _recorded(guard, tool.name)),
        }
        for tool in guard.toolset
    ]
    return Guard.compile(guard.format, tools, tokenizer, reasoning=guard.reasoning)


def _without(schema: Any, place: str, recorded: set[tuple[str, str]]) -> Any:
    """A schema without what is recorded, each in its place."""
    if not isinstance(schema, dict):
        return schema
    result = {}
    for keyword, value in schema.items():
        match keyword:
            case "properties":
                inner = {k: _without(v, f"{place}/{k}", recorded) for k, v in value.items()}
            case "$defs" | "definitions":
                inner = {k: _without(v, f"/{keyword}/{k}", recorded) for k, v in value.items()}
            case "anyOf" | "oneOf" | "allOf":
                inner = [_without(part, place, recorded) for part in value]
            case "prefixItems":
                inner = [_without(part, f"{place}/{i}", recorded) for i, part in enumerate(value)]
            case "items" | "additionalProperties":
                inner = _without(value, f"{place}/{_INSIDE[keyword]}", recorded)
            case _ if keyword in NARROWER and (place, keyword) in recorded:
                continue
            case _:
                inner = value
        result[keyword] = inner
    return result
