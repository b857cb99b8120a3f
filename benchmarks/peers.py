"""What others make of a message of a Hermes-style model, each used the obvious way.

The text between `<tool_call>` tags, of the last one to the end of the message, or the whole message
where there are none, goes through the library; an object with the name of an offered tool and an
object of arguments is a call. What it gives for a message is a list of calls. `validated`: without
those that fail their tool's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import json_repair
import partial_json_parser

import toolguard
from toolguard import Toolset

Calls = list[dict[str, Any]]
Peer = Callable[[str, Toolset], Calls]

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


def peers() -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers by name, and of those that are absent, why."""
    found = {
        "json_repair": _parsing(json_repair.loads),
        "json_repair, validated": _validated(_parsing(json_repair.loads)),
        "partial-json-parser": _parsing(partial_json_parser.loads),
        "plain JSON": _parsing(json.loads),
    }
    try:
        return {**found, "vLLM hermes": _vllm()}, {}
    except ImportError as error:
        why = f"{error}; run this with the Python of an environment that has vLLM"
        return found, {"vLLM hermes": why}


def _parsing(loads: Callable[[str], Any]) -> Peer:
    def calls(source: str, toolset: Toolset) -> Calls:
        made: Calls = []
        for text in _TAGGED.findall(source) or [source]:
            try:
                value = loads(text.strip())
            except Exception:  # partial-json-parser raises AssertionError and IndexError too
                continue
            made += (part for part in (value if isinstance(value, list) else [value]) if part)
        return [
            {"name": part["name"], "arguments": part["arguments"]}
            for part in made
            if isinstance(part, dict)
            and part.get("name") in toolset.names
            and isinstance(part.get("arguments"), dict)
        ]

    return calls


def _validated(peer: Peer) -> Peer:
    return lambda source, toolset: [
        call
        for call in peer(source, toolset)
        if not toolset.errors(call["name"], call["arguments"])
    ]


def _vllm() -> Peer:
    """vLLM's own parser, with the bundled tokenizer, which has the tags as ids."""
    from transformers import AutoTokenizer
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    make = ToolParserManager.get_tool_parser("hermes")

    def calls(source: str, toolset: Toolset) -> Calls:
        request = ChatCompletionRequest(messages=[], model="", tools=toolset.definitions)
        read = make(tokenizer, request.tools).extract_tool_calls(source, request)
        made = [
            (call.function.name, json.loads(call.function.arguments)) for call in read.tool_calls
        ]
        return [
            {"name": name, "arguments": arguments}
            for name, arguments in made
            if name in toolset.names and isinstance(arguments, dict)
        ]

    return calls
