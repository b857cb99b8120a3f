"""Calls of real tools: right ones, and right ones changed in value or in spelling.

The tools are the lists that servers of the Model Context Protocol give (`tools/list`), a JSON file
each. Their schemas are what people have: references, unions, formats, patterns, open objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from toolguard import Tool, Toolset
from toolguard.formats.nodes import Strings
from toolguard.grammar.automaton import shortest_end
from toolguard.tools.schemas import resolve

Value: TypeAlias = Any
Change: TypeAlias = Callable[[Value, Random], Value]

TEXTS = (
    *("", "a", "Rome", "a.txt", "README.md", "main", "2026-01-31", "it's", 'say "hi"', "a, b: c"),
    *("x = [1, 2]", "f(a=1)", "1", "-3.5", "1e3", "null", "true", "None", "{}", "[]", '{"a": 1}'),
    *("line\nline\n", "\ttab", r"C:\new\file", r"\d+", "a/b", "<b>bold</b>", "a < b", "<", "]]>"),
    *("über", "日本", "😀", "\u2028", "\x7f", " padded ", "\n", "https://example.org/a?b=c#d"),
    *("a@example.org", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00", "12:00:00"),
    *("123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000", "aé" * 40),
)
NUMBERS = (
    *(0, 1, -1, 2, 5, 7, 10, 50, 99, 100, 101, 1000, 65536, 10**12),
    *(0.5, 1.5, -2.25, 19.99, 1e-4),
)
ODD: tuple[Value, ...] = (
    *(None, True, False, 0, -1, 3, 2.0, 1.5, 1e30, "", "x", "1", "true"),
    *([], {}, [1], {"a": 1}, ["x"]),
)
DEEPEST = 6
TRIES = 40


def lists(folder: Path) -> Iterator[Toolset]:
    """The tools of each server whose list lies in a folder."""
    for path in sorted(folder.glob("*.json")):
        listed = json.loads(path.read_text("utf-8"))
        yield Toolset.of(listed["tools"] if isinstance(listed, dict) else listed)


def right_arguments(tool: Tool, draw: Random) -> dict[str, Value] | None:
    """Arguments that the tool's schema allows; None if none are found."""
    valid = tool.valid(tool.parameters)
    for _ in range(TRIES):
        made = _value(tool.parameters, tool, draw, 0)
        if isinstance(made, dict) and valid(made):
            return made
    return None


def _value(schema: Any, tool: Tool, draw: Random, depth: int) -> Value:
    """A value that a schema may allow."""
    if schema is False or depth > DEEPEST:
        return None
    if schema is True or not schema:
        return deepcopy(draw.choice(ODD))
    if "$ref" in schema:
        target = resolve(tool.parameters, schema["$ref"], tool.name)
        return _value(target, tool, draw, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return draw.choice(schema["enum"])
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            part = draw.choice(schema[keyword])
            rest = {k: v for k, v in schema.items() if k != keyword}
            merged = {**rest, **part} if isinstance(part, Mapping) else rest
            if "properties" in rest and "properties" in merged:
                merged["properties"] = {**rest["properties"], **merged["properties"]}
            return _value(merged, tool, draw, depth + 1)
    for part in schema.get("allOf", ()):
        schema = {**schema, **part}
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    match draw.choice(kinds) if isinstance(kinds, list) else kinds:
        case "object":
            return _object(schema, tool, draw, depth)
        case "array":
            low = schema.get("minItems", 0)
            count = draw.randint(low, min(low + 3, schema.get("maxItems", low + 3)))
            return [_value(schema.get("items", True), tool, draw, depth + 1) for _ in range(count)]
        case "string":
            return _string(schema, draw)
        case "integer" | "number" as kind:
            return _number(schema, kind, draw)
        case "boolean":
            return draw.random() < 0.5
        case _:
            return None


def _object(schema: Mapping[str, Any], tool: Tool, draw: Random, depth: int) -> dict[str, Value]:
    properties, required = schema.get("properties", {}), schema.get("required", ())
    share = draw.random() / (depth + 1)
    keys = [key for key in properties if key in required or draw.random() < share]
    draw.shuffle(keys)
    made = {key: _value(properties[key], tool, draw, depth + 1) for key in keys}
    more = schema.get("additionalProperties", True)
    if more is not False and draw.random() < 0.5:
        for key in draw.sample(["x", "a b", "größe", "k-1", 'q"q', "x/y", "null", "_"], 2):
            made.setdefault(key, _value(more, tool, draw, depth + 1))
    return made


def _string(schema: Mapping[str, Any], draw: Random) -> str:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema:
        pattern = schema["pattern"].removeprefix("^").removesuffix("$")
        found: str | None = shortest_end(Strings(pattern, low, high))
        return found or ""
    text = draw.choice(TEXTS)
    return text.ljust(low, "a")[:high]


def _number(schema: Mapping[str, Any], kind: str, draw: Random) -> float:
    bounds = [schema[key] for key in schema if key.lower().endswith(("minimum", "maximum"))]
    near = [bound + step for bound in bounds for step in (-1, -0.5, 0, 0.5, 1)]
    number = draw.choice([*NUMBERS, *near, *near])
    unit = schema.get("multipleOf")
    if unit:
        number = round(number / unit) * unit
    return int(number) if kind == "integer" else number


def changed_value(arguments: dict[str, Value], tool: Tool, draw: Random) -> dict[str, Value]:
    """The same arguments but for one thing: a member lost, added, renamed, or another value."""
    made = deepcopy(arguments)
    holders = [made, *_inside(made)]
    holder = draw.choice(holders)
    if isinstance(holder, list):
        place = draw.randint(0, len(holder))
        holder[place : place + draw.randint(0, 1)] = [deepcopy(draw.choice(ODD))] * draw.randint(
            0, 2
        )
        return made
    known = [*tool.parameters.get("properties", {}), "extra", "Name", "a b"]
    key = draw.choice([*holder, *known] if holder is made else [*holder, "extra"])
    match draw.randrange(4):
        case 0:
            holder.pop(key, None)
        case 1:
            value = holder.pop(key, 1)
            holder[draw.choice(known)] = value
        case _:
            holder[key] = deepcopy(draw.choice([*ODD, *TEXTS, *NUMBERS]))
    return made


def _inside(value: Value) -> Iterator[Any]:
    """The objects and arrays in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        if isinstance(each, dict | list):
            yield each
            yield from _inside(each)


_NUMERAL = re.compile(r"(?<![\w.\"'-])-?\d+(?:\.\d+)?(?![\w.\"'])")
_SPELLINGS: Sequence[Callable[[str], str]] = (
    lambda text: f"{text}.0" if "." not in text else f"{text}0",
    lambda text: f"{text}e0",
    lambda text: f"{text}E+1",
    lambda text: f"{text}0e-1" if "." not in text else f"{text}e-1",
    lambda text: f"0{text}",
    lambda text: f"-{text}".removeprefix("--"),
    lambda text: f"{text}." if "." not in text else text.lstrip("0"),
    lambda text: f"{float(text):e}",
)


def respelled(text: str, draw: Random) -> str:
    """The same turn in another spelling, right or wrong: of a number, of a character, of space."""
    numerals = list(_NUMERAL.finditer(text))
    match draw.randrange(5 if numerals else 3):
        case 0:
            return _escaped(text, draw)
        case 1:
            signs = [found.end() for found in re.finditer(r"[,:{\[(=}\])>]", text)]
            place = draw.choice(signs or [0])
            return text[:place] + draw.choice([" ", "\n", "\t", "  \n  "]) + text[place:]
        case 2:
            swap = draw.choice(["''", '""', "\"'", "'\"", "/\\", "Tt", "tT", "nN", "fF", "//"])
            places = [i for i, char in enumerate(text) if char == swap[0]]
            place = draw.choice(places or [0])
            new = swap[1] if swap != "//" else "\\/"
            return text[:place] + new + text[place + 1 :] if places else text
        case _:
            found = draw.choice(numerals)
            return text[: found.start()] + draw.choice(_SPELLINGS)(found[0]) + text[found.end() :]


def _escaped(text: str, draw: Random) -> str:
    """One character as an escape."""
    place = draw.randrange(len(text))
    code = ord(text[place])
    forms = [f"\\u{code:04x}", f"\\u{code:04X}"] if code < 0x10000 else []
    if code < 0x100:
        forms.append(f"\\x{code:02x}")
    if text[place] in "/\"'\\bfnrt":
        forms += ["\\" + text[place]] * 3
    return text[:place] + draw.choice(forms or [text[place]]) + text[place + 1 :]
