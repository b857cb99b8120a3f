"""The same case asked in another wire format: the messages themselves describe the tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import FormatError
from ..formats.render import render
from ..formats.wire_format import WireFormat
from .cases import Case

_EXAMPLES = (
    {"name": "example_function", "arguments": {"first": "some text", "second": 5}},
    {"name": "another_function", "arguments": {"third": "more text"}},
)


def asked_in(case: Case, wire_format: WireFormat, *, compact: bool = False) -> Case:
    """A case whose messages describe the tools and how to call them, for models whose chat template
    does not know the format.

    Calls in the history are written out in the format, and what tools answered is told by the user.
    Pass `show_tools=False` to `toolguard.generate` with it.

    Args:
        compact: the JSON of the descriptions has no white space.
    """
    given = [message["content"] for message in case.messages if message["role"] == "system"]
    system = "\n\n".join([*given, _instructions(case, wire_format, compact)])
    rest = [message for message in case.messages if message["role"] != "system"]
    return replace(
        case, messages=({"role": "system", "content": system}, *_told(rest, wire_format))
    )


def _instructions(case: Case, wire_format: WireFormat, compact: bool) -> str:
    separators = (",", ":") if compact else None
    tools = "\n".join(
        json.dumps(tool["function"], ensure_ascii=False, separators=separators)
        for tool in case.toolset.definitions
    )
    return (
        f"# Tools\nYou can call these functions:\n{tools}\n\n"
        f"A call is written exactly like this:\n{render(wire_format, _EXAMPLES[:1])}\n\n"
        f"{_several(wire_format)}"
        "Where no function is needed, reply in plain text."
    )


def _several(wire_format: WireFormat) -> str:
    try:
        return f"Several calls are written like this:\n{render(wire_format, _EXAMPLES)}\n\n"
    except FormatError:
        return ""


def _told(
    messages: Sequence[Mapping[str, Any]], wire_format: WireFormat
) -> list[Mapping[str, Any]]:
    told: list[Mapping[str, Any]] = []
    for message in messages:
        calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
        if message["role"] == "tool":
            content = f"Result:\n{message['content']}"
            if told and told[-1]["content"].startswith("Result:\n"):
                content = f"{told.pop()['content']}\n{content}"
            told.append({"role": "user", "content": content})
        elif calls:
            read = [{**call, "arguments": _object(call["arguments"])} for call in calls]
            text = "".join(filter(None, (message.get("content"), _written(read, wire_format))))
            told.append({"role": "assistant", "content": text})
        else:
            told.append(message)
    return told


def _written(calls: Sequence[Mapping[str, Any]], wire_format: WireFormat) -> str:
    try:
        return render(wire_format, calls)
    except FormatError:  # a format with one call a turn
        return "\n".join(render(wire_format, [call]) for call in calls)


def _object(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments
