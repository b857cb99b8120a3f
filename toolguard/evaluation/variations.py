"""The same cases in other words: what must not matter to a model that knows how to call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..tools.toolset import Toolset
from .case import Case

Variation = Callable[[Case], Case]


def arguments_reversed(case: Case) -> Case:
    """Every tool's parameters are described in the opposite order."""

    def turned(tool: Mapping[str, Any]) -> Mapping[str, Any]:
        parameters = tool["function"].get("parameters", {})
        if "properties" not in parameters:
            return tool
        properties = dict(reversed(parameters["properties"].items()))
        function = {**tool["function"], "parameters": {**parameters, "properties": properties}}
        return {**tool, "function": function}

    return replace(case, toolset=Toolset.of([turned(tool) for tool in case.toolset.definitions]))


def tools_renamed(case: Case) -> Case:
    """Every tool's name is written in the other style: `set_light` as `setLight`, `ping` as
    `ping_tool`, `setLight` as `set_light`."""
    names = {name: _other_style(name) for name in case.toolset.names}
    if len({*names.values()}) < len(names):
        return case

    def called(call: Mapping[str, Any]) -> dict[str, Any]:
        return {**call, "name": names.get(call["name"], call["name"])}

    def told(message: Mapping[str, Any]) -> Mapping[str, Any]:
        calls = message.get("tool_calls")
        if not calls:
            return message
        renamed = [
            {**call, "function": called(call["function"])} if "function" in call else called(call)
            for call in calls
        ]
        return {**message, "tool_calls": renamed}

    tools = [
        {**tool, "function": {**tool["function"], "name": names[tool["function"]["name"]]}}
        for tool in case.toolset.definitions
    ]
    return replace(
        case,
        toolset=Toolset.of(tools),
        messages=tuple(map(told, case.messages)),
        calls=tuple(map(called, case.calls)),
    )


def results_spaced(case: Case) -> Case:
    """The JSON of tools' results in the history is written over several lines."""
    return _results(case, indent=2)


def results_compact(case: Case) -> Case:
    """The JSON of tools' results in the history is written without white space."""
    return _results(case, separators=(",", ":"))


def quoted_request(case: Case) -> Case:
    """What the user said last stands between delimiters."""
    *before, last = case.messages
    if last["role"] != "user":
        return case
    content = f"<request>\n{last['content']}\n</request>"
    return replace(case, messages=(*before, {**last, "content": content}))


VARIATIONS: dict[str, Variation] = {
    "arguments reversed": arguments_reversed,
    "tools renamed": tools_renamed,
    "results spaced": results_spaced,
    "results compact": results_compact,
    "request delimited": quoted_request,
}


def _results(case: Case, **style: Any) -> Case:
    def told(message: Mapping[str, Any]) -> Mapping[str, Any]:
        if message["role"] != "tool":
            return message
        try:
            content = json.dumps(json.loads(message["content"]), ensure_ascii=False, **style)
        except ValueError:
            return message
        return {**message, "content": content}

    return replace(case, messages=tuple(map(told, case.messages)))


def _other_style(name: str) -> str:
    if "_" in name.strip("_"):
        first, *rest = [part for part in name.split("_") if part]
        return first + "".join(part[0].upper() + part[1:] for part in rest)
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return split if "_" in split else f"{name}_tool"
