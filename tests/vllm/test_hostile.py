"""Requests that mean harm: each is refused by name or served, and the server lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

import openai
import pytest

from toolguard import Case

from .test_server import ask, check, made


def tool(name: str = "f", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def recursive() -> dict[str, Any]:
    made = tool(x={"$ref": "#/$defs/n"})
    children = {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 2}
    node = {"type": "object", "properties": {"c": children}, "required": ["c"]}
    made["function"]["parameters"]["$defs"] = {"n": node}
    return made


def endless() -> dict[str, Any]:
    made = tool(x={"$ref": "#/$defs/n"})
    node = {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "required": ["c"]}
    made["function"]["parameters"]["$defs"] = {"n": node}
    return made


REFUSED: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "10 MB of tools": lambda: [tool(f"f{i}", x={"description": "x" * 10_000}) for i in range(1000)],
    "100,000 values": lambda: [tool(x={"enum": [f"v{i}" for i in range(100_000)]})],
    "20,000 tools": lambda: [tool(f"f{i}", a={"type": "string"}) for i in range(20_000)],
    "deep nesting": lambda: [tool(x=nested(80))],
    "a million items": lambda: [tool(x={"type": "array", "minItems": 10**6})],
    "no end": lambda: [endless()],
    "no such reference": lambda: [tool(x={"$ref": "#/$defs/none"})],
    "no schema": lambda: [tool(x={"type": "strin"})],
    "two of a name": lambda: [tool("f"), tool("f")],
    "no name": lambda: [tool("")],
    "a tag for a name": lambda: [tool("</tool_call>")],
}
SERVED: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "recursion": lambda: [recursive()],
    "backtracking": lambda: [tool(x={"type": "string", "pattern": "^(a+)+$"})],
    "counters": lambda: [tool(x={"type": "string", "pattern": "^(.{0,5000}x){0,500}$"})],
    "a million letters": lambda: [tool(x={"type": "string", "pattern": "^[a-z]{1000000}$"})],
    "a billion letters": lambda: [tool(x={"type": "string", "maxLength": 10**9})],
}


def request(client: openai.OpenAI, tools: list[dict[str, Any]], **options: Any) -> Any:
    options = {"tool_choice": "required", "temperature": 0, "max_tokens": 60, **options}
    messages: Any = [{"role": "user", "content": "go"}]
    return client.chat.completions.create(
        model="model",
        messages=messages,
        tools=tools,
        extra_body={"chat_template": "go"},  # without the tools: the prompt is never too long
        **options,
    )


@pytest.mark.parametrize("name", REFUSED)
def test_harmful_tools_are_refused(client: openai.OpenAI, asked: list[Case], name: str) -> None:
    with pytest.raises(openai.BadRequestError, match="tool") as refused:
        request(client, REFUSED[name]())
    assert len(str(refused.value)) < 3000
    assert made(ask(client, asked[0]))


@pytest.mark.parametrize("name", SERVED)
def test_others_are_served(client: openai.OpenAI, name: str) -> None:
    tools = SERVED[name]()
    response = request(client, tools)
    assert response.choices[0].finish_reason in ("tool_calls", "length")


def test_no_such_tool(client: openai.OpenAI) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        request(client, [tool()], tool_choice=other)


def test_others_hardly_wait_for_harmful_requests(client: openai.OpenAI, asked: list[Case]) -> None:
    """The longest wait of innocent requests beside harmful ones, against beside harmless ones."""
    fresh = (tool(f"g{number}") for number in count())  # so that no guard is in a cache

    def harm() -> None:
        for tools in (*REFUSED.values(), *SERVED.values()):
            with suppress(openai.BadRequestError):
                request(client, [next(fresh), *tools()])

    def no_harm() -> None:
        for _ in (*REFUSED, *SERVED):
            request(client, [next(fresh)])

    def longest_wait(beside: Callable[[], None]) -> float:
        waits = []
        with ThreadPoolExecutor(1) as other:
            done = other.submit(beside)
            while not done.done():
                started = time.perf_counter()
                check(made(ask(client, asked[1])), asked[1])
                waits.append(time.perf_counter() - started)
            done.result()
        return max(waits)

    def hardly() -> bool:
        return longest_wait(harm) / longest_wait(no_harm) < 10

    first, second = hardly(), hardly()
    assert first + second + (first != second and hardly()) >= 2  # the median of three
