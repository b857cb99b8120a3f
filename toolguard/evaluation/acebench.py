"""Reads the files of ACEBench as they are on disk.

`data_all/data_en/data_CATEGORY.json` holds a `question` (`user: ...` and `system: ...`, which is
the assistant, a line each), `function`s, `time` and `profile` a line, and the file of that name in
`possible_answer/` beside it the `ground_truth`: the arguments of each call by the tool's name, with
`_1`, `_2` behind the name where a tool is called more than once. Time and profile become a system
message, calls in the history become calls with their results, and the order of the expected calls
does not matter. In the special categories (something is missing or wrong, or no tool helps) no call
is expected.

Values are compared as they are. ACEBench's own checker takes a string that contains the right one,
so its figures can be higher.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ToolsetError
from ..tools.toolset import Toolset
from .benchmark import Benchmark
from .case import Case, fault_of
from .dialect import tool, tool_name
from .lines import Line

_SPEAKER = re.compile(r"^(user|system|assistant): ?", re.MULTILINE)
_WORDS = {"true": True, "false": False, "null": None}


def unread(path: Path) -> str:
    """Why there are no cases in a file, by its name; empty if there are."""
    return _unread(path.stem.removeprefix("data_"))


def _is_question(row: Mapping[str, Any]) -> bool:
    functions = row.get("function")
    return (
        isinstance(row.get("id"), str)
        and isinstance(row.get("question"), str)
        and isinstance(functions, list)
        and all(isinstance(function, dict) for function in functions)
    )


def _unread(category: str) -> str:
    return "its turns run against a simulated phone" if category.startswith("agent") else ""


def _case(line: Line, kind: str, truth: Any) -> Case | str:
    """The case, or why there is none."""
    row = line.row
    if not isinstance(truth, dict):
        return "the answer is none call by call"
    try:
        toolset = Toolset.of([tool(function) for function in row["function"]])
    except ToolsetError:
        return "a tool's schema is no JSON Schema"
    calls = []
    for key, arguments in truth.items():
        name = tool_name(key)
        if name not in toolset.names:
            name = re.sub(r"_\d+$", "", name)
        calls.append({"name": name, "arguments": arguments})
    messages = tuple(_messages(row, toolset))
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        return "the question ends with the assistant's words"
    case = Case(
        id=row["id"],
        kind=kind,
        toolset=toolset,
        messages=messages,
        calls=tuple(calls),
        reply=None,
        order="any",
    )
    return "the expected call violates its tool's schema" if fault_of(case) else case


def _messages(row: dict[str, Any], toolset: Toolset) -> Iterator[dict[str, Any]]:
    known = [str(row.get(key) or "").strip() for key in ("time", "profile")]
    if any(known):
        yield {"role": "system", "content": "\n".join(filter(None, known))}
    first, *said = _SPEAKER.split(row["question"])
    if first.strip():
        yield {"role": "user", "content": first.strip()}
    asked: list[dict[str, str]] = []  # the calls whose result comes next
    count = 0
    for speaker, words in zip(said[::2], said[1::2], strict=True):
        text = words.strip()
        if speaker == "user":
            yield {"role": "user", "content": text}
        elif asked:
            yield from ({**call, "role": "tool", "content": text} for call in asked)
        elif calls := _calls(text, toolset):
            ids = [f"call{count + place:05d}" for place in range(1, len(calls) + 1)]
            count += len(calls)
            made = [
                {"id": id, "type": "function", "function": call}
                for id, call in zip(ids, calls, strict=True)
            ]
            yield {"role": "assistant", "content": "", "tool_calls": made}
            asked = [
                {"tool_call_id": id, "name": call["name"]}
                for id, call in zip(ids, calls, strict=True)
            ]
            continue
        else:
            yield {"role": "assistant", "content": text}
        asked = []


def _calls(text: str, toolset: Toolset) -> list[dict[str, Any]]:
    """The calls of `[f(a="x"), g(b=[1])]`; none if it is anything else."""
    try:
        parsed = ast.parse(text, mode="eval").body
        elements = parsed.elts if isinstance(parsed, ast.List) else []
        return [_call(element, toolset) for element in elements]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _call(node: ast.expr, toolset: Toolset) -> dict[str, Any]:
    match node:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=given) if name in toolset.names:
            pairs = ((keyword.arg, keyword.value) for keyword in given)
            return {"name": name, "arguments": {key: _value(value) for key, value in pairs if key}}
    raise ValueError("no call of a tool")


def _value(node: ast.expr) -> Any:
    """As `ast.literal_eval`, which does not know JSON's words."""
    match node:
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.List(elts=elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {ast.literal_eval(key): _value(value) for key, value in pairs if key}
        case _:
            return ast.literal_eval(node)


ACEBENCH = Benchmark(
    name="ACEBench",
    shape="an 'id', text as 'question' and a list of 'function'",
    is_question=_is_question,
    kind=lambda id: re.sub(r"(_\d+)+$", "", id),
    unread=_unread,
    answered=lambda kind: not kind.startswith("special"),
    nothing={},
    fault=lambda truth: "",
    case=_case,
)
