"""A real server of a damaged checkpoint, and a real client that knows nothing of toolguard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
import vllm

from toolguard import Case
from toolguard.integrations.vllm import plugin

from .serving import UNGUARDED, serving


def ask(client: openai.OpenAI, case: Case, **options: Any) -> Any:
    options = {"temperature": 0, "max_tokens": 200, **options}
    return client.chat.completions.create(
        model="model", messages=case.messages, tools=case.toolset.definitions, **options
    )


def streamed(chunks: Any) -> tuple[str, list[tuple[str, str]], str | None]:
    """What a client puts together: the content, the calls and the finish reason."""
    content, finish = "", None
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        finish = choice.finish_reason or finish
        for call in choice.delta.tool_calls or []:
            name, arguments = calls.setdefault(call.index, ["", ""])
            name += call.function.name or ""
            calls[call.index] = [name, arguments + (call.function.arguments or "")]
    return content, [(name, arguments) for name, arguments in calls.values()], finish


def made(response: Any) -> list[tuple[str, str]]:
    calls = response.choices[0].message.tool_calls or []
    return [(call.function.name, call.function.arguments) for call in calls]


def check(calls: list[tuple[str, str]], case: Case) -> None:
    """Every call satisfies its tool's schema."""
    for name, arguments in calls:
        schema = next(tool.parameters for tool in case.toolset if tool.name == name)
        jsonschema.validate(json.loads(arguments), schema)


@pytest.mark.slow  # that the tests below can fail
def test_unguarded_it_makes_no_call(asked: list[Case], tmp_path: Path) -> None:
    with serving("open_then_stop", *UNGUARDED, log=tmp_path / "log") as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        responses = [ask(client, case) for case in asked[:8]]
    assert not any(made(response) for response in responses)


def test_guarded_it_makes_valid_calls(client: openai.OpenAI, asked: list[Case]) -> None:
    for case in asked[:8]:
        response = ask(client, case)
        assert response.choices[0].finish_reason == "tool_calls"
        assert made(response)
        check(made(response), case)
        assert all(call.id for call in response.choices[0].message.tool_calls)


def test_streamed_it_makes_the_same_calls(client: openai.OpenAI, asked: list[Case]) -> None:
    for case in asked[:8]:
        content, calls, finish = streamed(ask(client, case, stream=True))
        response = ask(client, case)
        assert (calls, finish) == (made(response), "tool_calls")
        assert content == (response.choices[0].message.content or "")


@pytest.mark.parametrize("stream", [False, True])
def test_tool_choices(client: openai.OpenAI, asked: list[Case], stream: bool) -> None:
    def answer(choice: Any, case: Case) -> tuple[str, list[tuple[str, str]], str | None]:
        found = ask(client, case, tool_choice=choice, stream=stream)
        if stream:
            return streamed(found)
        message, finish = found.choices[0].message, found.choices[0].finish_reason
        return message.content or "", made(found), finish

    ended = 0

    for case in asked[:4]:
        content, calls, _ = answer("none", case)
        assert not calls
        assert content.strip()
        assert "<tool_call>" not in content
        _, calls, _ = answer("required", case)
        assert calls
        check(calls, case)
        for tool in case.toolset:
            named = {"type": "function", "function": {"name": tool.name}}
            _, calls, finish = answer(named, case)
            assert {name for name, _ in calls} <= {tool.name}
            if finish != "length":  # a tool that does not fit, with values that do not end
                assert calls
                check(calls, case)
                ended += 1
    assert ended >= 8


def test_parallel_calls_can_be_switched_off(client: openai.OpenAI, asked: list[Case]) -> None:
    several = [case for case in asked if len(case.calls) > 1][:4]
    counts = [len(made(ask(client, case))) for case in several]
    assert max(counts) > 1
    for case in several:
        assert len(made(ask(client, case, parallel_tool_calls=False))) == 1


def test_a_request_can_leave_the_guard_out(client: openai.OpenAI, asked: list[Case]) -> None:
    off = {"vllm_xargs": {"toolguard_policy": "off"}}
    assert not any(made(ask(client, case, extra_body=off)) for case in asked[:4])


def test_a_call_that_the_budget_ends_is_none(client: openai.OpenAI, asked: list[Case]) -> None:
    reasons = set()
    for case in asked[:4]:
        whole = ask(client, case, tool_choice="required")
        tokens = whole.usage.completion_tokens
        if tokens < 36:
            continue  # what not even the shortest turn fits into is refused
        for budget in (tokens - 9, tokens - 3, tokens):
            options = {"tool_choice": "required", "max_tokens": budget}
            response = ask(client, case, **options)
            reason = response.choices[0].finish_reason
            reasons.add(reason)
            told, own = made(response), made(whole)
            assert told == own[: len(told)]
            assert (reason == "tool_calls") == (budget == tokens)
            assert "<tool_call>" not in (response.choices[0].message.content or "")
            *_, last = ask(client, case, stream=True, **options)
            assert last.choices[0].finish_reason == reason
    assert reasons == {"tool_calls", "length"}


def test_the_other_apis_say_so_too(client: openai.OpenAI, asked: list[Case]) -> None:
    case = asked[0]
    options = {"model": "model", "temperature": 0}
    functions = [{"type": "function", **tool["function"]} for tool in case.toolset.definitions]
    response = client.responses.create(
        input=[*case.messages], tools=functions, tool_choice="required", max_output_tokens=25,
        **options,
    )  # fmt: skip
    assert response.status == "incomplete"
    assert not [item for item in response.output if item.type == "function_call"]
    tools = [
        {"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]}
        for tool in case.toolset.definitions
    ]
    url = f"{str(client.base_url).removesuffix('/v1/')}/v1/messages"
    body = {"messages": [*case.messages], "tools": tools, "max_tokens": 25, **options}
    body["tool_choice"] = {"type": "any"}
    message = client._client.post(url, json=body).json()
    assert message["stop_reason"] == "max_tokens"
    assert not [part for part in message["content"] if part["type"] == "tool_use"]


def test_the_log_has_a_line_per_intervened_turn(
    client: openai.OpenAI, asked: list[Case], log: Path
) -> None:
    ask(client, asked[0])
    lines = [line for line in log.read_text().splitlines() if "toolguard intervened: " in line]
    found = json.loads(lines[-1].split("toolguard intervened: ")[1])
    assert found["interventions"]
    assert found["format"] == "hermes"
    assert "toolguard guards in mode processor" in log.read_text()


BAD: list[tuple[str, dict[str, Any]]] = [
    ("toolguard_policy", {"extra_body": {"vllm_xargs": {"toolguard_policy": "shout"}}}),
    ("max_tokens", {"max_tokens": 3, "tool_choice": "required"}),
    ("min_tokens", {"extra_body": {"min_tokens": 5}}),
    ("allowed_token_ids", {"extra_body": {"allowed_token_ids": [5]}}),
]


@pytest.mark.parametrize(("field", "options"), BAD)
def test_bad_parameters_are_refused(
    client: openai.OpenAI, asked: list[Case], field: str, options: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError, match=field):
        ask(client, asked[0], **options)
    assert made(ask(client, asked[0]))


def test_raw_extra_arguments_are_checked(client: openai.OpenAI) -> None:
    for extra, field in [("{", "JSON"), ('{"format": "klingon", "tools": []}', "klingon")]:
        with pytest.raises(openai.BadRequestError, match=field):
            client.completions.create(
                model="model", prompt="x", max_tokens=5,
                extra_body={"vllm_xargs": {"toolguard": extra}},
            )  # fmt: skip


def test_an_old_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.check_version()
    monkeypatch.setattr(vllm, "__version__", "0.31.4")
    with pytest.raises(ImportError, match=r"0\.32 or newer, and this is 0\.31\.4"):
        plugin.check_version()
