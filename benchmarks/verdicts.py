"""Whether mask, reader and jsonschema say the same of a turn.

Nothing excuses a difference but what the product itself records at the very place: the relaxations
of a guard's mask, and the corrections of a tool's definition.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Tool, Toolset, Turn
from toolguard.grammar.arguments import PLAINLY
from toolguard.parsing.turn import OF_TEXT
from toolguard.tools.schemas import resolve

SPELLED = frozenset(
    {"pattern", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
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
    said = replace(guard, toolset=Unjudged(guard.toolset.tools)).read(ids)
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
    opened = guard.reasoning == "open"
    by_text = toolguard.read_turn(turn.raw, guard.format, guard.toolset, opened=opened)
    if not kinds and calls(by_text) != calls(turn):
        result["difference"] = "ids and text read as different calls"
    elif bool(kinds) != bool(said.faults or found):
        result["difference"] = f"reader {kinds}, jsonschema [{keywords}]"
    elif meant is not None and not _is_said(meant, said, guard):
        result["difference"] = f"what is read is not what was written: {kinds}"
    elif admitted and not OF_TEXT.issuperset(kinds):
        recorded = not said.faults and all(
            _any_option(partial(is_recorded, guard, name), error) for name, error in found
        )
        result["recorded" if recorded else "difference"] = f"mask admits: {keywords or kinds}"
    elif not admitted and not kinds:
        recorded = _admits_calls(guard, tokenizer, turn) and (
            admits(spelled_freely(guard, tokenizer), ids) or _is_escaped_key(guard, ids)
        )
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


def _admits_calls(guard: Guard, tokenizer: PreTrainedTokenizerBase, turn: Turn) -> bool:
    """Whether the mask admits a turn's calls as the format writes them."""
    written = [
        toolguard.render(guard.format, [{"name": call.name, "arguments": _whole(call.arguments)}])
        for call in turn.calls
    ]
    spelled = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in written]
    return all(admits(guard, [*ids, guard.vocabulary.end_ids[0]]) for ids in spelled)


def _whole(value: Any) -> Any:
    """A value with whole numbers as such."""
    match value:
        case dict():
            return {key: _whole(inner) for key, inner in value.items()}
        case list():
            return [*map(_whole, value)]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


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
    if valid == (not errors) or (errors and all(_any_option(_is_closing, e) for e in errors)):
        return {}
    places = [
        "/".join(["", *map(str, error.absolute_schema_path)])
        for error in errors or came.iter_errors(arguments)
    ]
    corrected = [each.path or f"/{each.keyword}" for each in tool.corrections]
    recorded = all(
        any(place.startswith(path) or path.startswith(place) for path in corrected)
        for place in places
    )
    return {"recorded" if recorded else "difference": "the schema as it came says otherwise"}


def _is_closing(error: ValidationError) -> bool:
    return bool(error.validator == "additionalProperties")


def _any_option(about: Callable[[ValidationError], bool], error: ValidationError) -> bool:
    """Whether an error is about something; or, of alternatives, all that keeps from one of them."""
    options = groupby(error.context or (), key=lambda each: each.schema_path[0])
    return about(error) or any(
        all(_any_option(about, each) for each in option) for _, option in options
    )


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
    """Whether a relaxation records an error's keyword, or one around it, in its place."""
    recorded = _recorded(guard, name)
    parameters: Any = guard.toolset[name].parameters
    schema, places, steps = parameters, {""}, [*map(str, error.absolute_schema_path)]
    while steps:
        while "$ref" in schema and steps[0] not in schema:
            places.add(schema["$ref"].removeprefix("#"))
            schema = resolve(parameters, schema["$ref"], name)
        step = steps.pop(0)
        said = {keyword for place, keyword in recorded if place in places}
        if step in said or (step == "oneOf" and not (steps or error.context) and AS_ANY in said):
            return True
        schema = schema[step]
        if steps and isinstance(schema, list):
            index = steps.pop(0)
            schema = schema[int(index)]
            inside = [index] if step == "prefixItems" else []
        elif steps and step in ("properties", "patternProperties"):
            key = steps.pop(0)
            schema = schema[key]
            inside = [key if step == "properties" else "*"]
        else:
            inside = [_INSIDE[step]] if step in _INSIDE else []
        places = {"/".join([place, *inside]) for place in places}
    return False


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
    plainly = PLAINLY in guard.relaxations

    def freely(schema: Any, place: str, recorded: set[tuple[str, str]]) -> Any:
        if not isinstance(schema, dict):
            return schema
        result: dict[str, Any] = {}
        for keyword, value in schema.items():
            bound = keyword in SPELLED and (place, keyword) in recorded
            if bound or (plainly and keyword in ("enum", "const")):
                continue
            if plainly and keyword == "type":
                kinds = value if isinstance(value, list) else [value]
                value = ["number" if kind == "integer" else kind for kind in kinds]
            elif keyword in ("properties", "$defs", "definitions"):
                root = place if keyword == "properties" else f"/{keyword}"
                value = {
                    key: freely(part, f"{root}/{key}", recorded) for key, part in value.items()
                }
            elif keyword in ("anyOf", "oneOf", "allOf"):
                value = [freely(part, place, recorded) for part in value]
            elif keyword == "prefixItems":
                value = [freely(part, f"{place}/{i}", recorded) for i, part in enumerate(value)]
            elif keyword in _INSIDE:
                value = freely(value, f"{place}/{_INSIDE[keyword]}", recorded)
            result[keyword] = value
        return result

    tools = [
        {"name": tool.name, "parameters": freely(tool.parameters, "", _recorded(guard, tool.name))}
        for tool in guard.toolset
    ]
    return Guard.compile(guard.format, tools, tokenizer, reasoning=guard.reasoning)


def _is_escaped_key(guard: Guard, ids: list[int]) -> bool:
    """Whether a mask refuses a needless escape in a key, and records that."""
    state = guard.start(10_000)
    taken = next((place for place, token in enumerate(ids) if not state.retrace(token)), len(ids))
    start, end = (len(guard.vocabulary.text_of(ids[:n])) for n in (taken, taken + 1))
    keys = {key for tool in guard.toolset for key in _keys(tool.parameters)}
    for found in _ESCAPED.finditer(guard.read(ids).raw):
        if found.start() < end and start < found.end():
            with suppress(SyntaxError):
                return PLAINLY in guard.relaxations and ast.literal_eval(found[0]) in keys
    return False


_ESCAPED = re.compile(r"""(["'])(?=[^"'\\]*\\)(?:[^"'\\]|\\.)*\1""")


def _keys(schema: Any) -> Iterator[str]:
    """The names of properties at any depth."""
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
    inner = schema.values() if isinstance(schema, dict) else schema
    for part in inner if isinstance(schema, dict | list) else ():
        yield from _keys(part)
