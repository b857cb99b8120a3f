"""Reads the files of the Berkeley Function Calling Leaderboard (v3, v4) as they are on disk.

`BFCL_v4_CATEGORY.json` holds a `question` and `function`s a line, and the file of that name in
`possible_answer/` beside it the `ground_truth`: for each call, the acceptable values of its
arguments, `""` among them if it may be left out. Dots in names of functions become underscores, in
tools and expected calls alike, types become JSON Schema's, and the order of calls does not matter.

Values are compared as they are. BFCL's own checker ignores case, blanks and some punctuation in
strings, so its figures can be higher.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from ..errors import ToolsetError
from ..tools.toolset import Toolset
from .benchmark import Benchmark
from .case import Acceptable, Case, fault_of
from .dialect import tool, tool_name
from .lines import Line

# By how the category begins: what there is no case to make of.
_UNREAD = {
    "multi_turn": "its turns run against a simulated API",
    "memory": "its turns run against a simulated memory",
    "web_search": "its turns search the web",
    "format_sensitivity": "it holds ids of other files",
    "java": "its arguments are source text of another language",
    "live_relevance": "it has no answers, any call counts",
    "exec": "its answers are source text",
    "rest": "its answers are what a server says",
    "sql": "its answers are what a database says",
    "chatable": "it offers no tools",
}
_MOST = 1000  # acceptable values of one argument


def unread(path: Path) -> str:
    """Why there are no cases in a file, by its name; empty if there are."""
    named = re.fullmatch(r"BFCL_v\d+_(.+)", path.stem)
    return _unread(named[1]) if named else ""


def _is_question(row: Mapping[str, Any]) -> bool:
    turns, functions = row.get("question"), row.get("function")
    return (
        isinstance(row.get("id"), str)
        and isinstance(turns, list)
        and all(isinstance(turn, list) and turn for turn in turns)
        and isinstance(functions, list)
        and all(isinstance(function, dict) for function in functions)
    )


def _fault(truth: Any) -> str:
    sound = isinstance(truth, list) and all(
        isinstance(call, dict)
        and all(isinstance(given, dict) for given in call.values())
        and all(isinstance(choices, list) for given in call.values() for choices in given.values())
        for call in truth
    )
    return "" if sound else "list of calls with lists of acceptable values"


def _unread(category: str) -> str:
    category = category.removeprefix("simple_")
    return next((why for name, why in _UNREAD.items() if category.startswith(name)), "")


def _case(line: Line, kind: str, truth: Any) -> Case | str:
    """The case, or why there is none."""
    turns, functions = line.row["question"], line.row["function"]
    if len(turns) != 1:
        return "the question has several turns"
    try:
        toolset = Toolset.of([tool(function) for function in functions])
    except ToolsetError:
        return "a tool's schema is no JSON Schema"
    calls: list[dict[str, Any]] = []
    acceptable = []
    for call in truth:
        for name, given in call.items():
            made = _call(toolset, tool_name(name), given)
            if made is None:
                return "the expected call violates its tool's schema"
            calls.append(made[0])
            acceptable.append(made[1])
    case = Case(
        id=line.row["id"],
        kind=kind,
        toolset=toolset,
        messages=tuple(turns[0]),
        calls=tuple(calls),
        reply=None,
        acceptable=tuple(acceptable),
        order="any",
    )
    return "the expected call violates its tool's schema" if fault_of(case) else case


def _call(
    toolset: Toolset, name: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], Acceptable] | None:
    """The expected call, and what else is right; None if its schema refuses all of it."""
    if name not in toolset.names:
        return None
    tool = toolset[name]
    required = tool.parameters.get("required", ())
    arguments, values, omittable = {}, {}, set()
    for argument, choices in given.items():
        accepts = tool.accepts(argument)
        fitting = [value for value in _expanded(choices) if accepts(value)]
        if "" in choices and argument not in required:
            omittable.add(argument)
        elif not fitting:
            return None
        else:
            arguments[argument] = fitting[0]
        if fitting:
            values[argument] = tuple(fitting)
    return {"name": name, "arguments": arguments}, Acceptable(values, frozenset(omittable))


def _expanded(choices: list[Any]) -> list[Any]:
    """The values that a list of choices stands for; `""` says only that there may be none."""
    values: list[Any] = []
    for choice in choices:
        if choice == "" and len(choices) > 1:
            continue
        values += _values(choice)
    return values


def _values(choice: Any) -> Iterator[Any]:
    """An object has, for each key, a list of choices; a list of objects is made of such."""
    if isinstance(choice, dict) and all(isinstance(inner, list) for inner in choice.values()):
        options = {key: _options(inner) for key, inner in choice.items()}
        if math.prod(map(len, options.values())) <= _MOST:
            for picked in product(*options.values()):
                pairs = zip(options, picked, strict=True)
                yield {key: value[0] for key, value in pairs if value}
    elif isinstance(choice, list) and any(isinstance(item, dict) for item in choice):
        items = [list(_values(item)) for item in choice]
        if math.prod(map(len, items)) <= _MOST:
            yield from map(list, product(*items))
    else:
        yield choice


def _options(choices: list[Any]) -> list[tuple[Any, ...]]:
    """The values of one key, each in a tuple; an empty tuple if the key may be left out."""
    options: list[tuple[Any, ...]] = []
    for choice in choices:
        if choice == "":
            options.append(())
            continue
        options += [(value,) for value in _values(choice)]
        if isinstance(choice, dict):  # deeper objects are sometimes written as they are
            options.append((choice,))
    return options


BFCL = Benchmark(
    name="BFCL",
    shape="an 'id', a list of turns as 'question' and a list of 'function'",
    is_question=_is_question,
    kind=lambda id: re.sub(r"_\d+(-\d+)*$", "", id),
    unread=_unread,
    answered=lambda kind: "irrelevance" not in kind,
    nothing=[],
    fault=_fault,
    case=_case,
)
