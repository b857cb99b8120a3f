"""The tool parser and the reasoning parser, without a server: text in, calls and content out."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager

import toolguard
from toolguard import RequestError
from toolguard.integrations.vllm import plugin

plugin.register()  # as vLLM does in each of its processes

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Kiel", "days": 2}}\n</tool_call>'
KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:7<|tool_call_argument_begin|>"
    '{"city": "Kiel"}<|tool_call_end|><|tool_calls_section_end|>'
)
TURNS = [
    CALL,
    f"I look it up.\n{CALL}\n{CALL}",
    "It rains in Kiel.",
    "Write <tool_call> to call a tool.",
    CALL.removesuffix("</tool_call>"),
    CALL.removeprefix("<tool_call>\n"),
    '<tool_call>\n{"name": "weather", "arguments": {"city" = "Kiel"}}\n</tool_call>',
    '<tool_call>\n{"name": "storm", "arguments": {}}\n</tool_call>',
    f"<think>\nKiel, then.\n</think>\n\n{CALL}",
    "",
]
TOKENIZER: Any = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))


def request(**options: Any) -> ChatCompletionRequest:
    messages = [{"role": "user", "content": "Kiel?"}]
    return ChatCompletionRequest(model="m", messages=messages, tools=TOOLS, **options)


def parser(setting: str = "toolguard", reasoning: str | None = None) -> Any:
    made = ParserManager.get_parser(
        tool_parser_name=setting, reasoning_parser_name=reasoning, enable_auto_tools=True
    )
    return made(TOKENIZER, request().tools)


def whole(text: str, **options: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    reasoning, content, calls = parser(**options).parse(text, request(), enable_auto_tools=True)
    found = [(call.name, json.loads(call.arguments)) for call in calls or []]
    return reasoning or "", content or "", found


def pieces(text: str, cuts: list[int], **options: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    """The same, streamed in pieces."""
    reading, asked = parser(**options), request()
    places = [0, *sorted({cut for cut in cuts if 0 < cut < len(text)}), len(text)]
    reasoning, content = "", ""
    calls: dict[int, list[str]] = {}
    for start, end in itertools.pairwise(places):
        ids = TOKENIZER.encode(text[start:end], add_special_tokens=False)
        delta = reading.parse_delta(
            text[start:end], ids, asked, prompt_token_ids=[1], finished=end == len(text)
        )
        if delta is None:
            continue
        reasoning += delta.reasoning or ""
        content += delta.content or ""
        for call in delta.tool_calls:
            name, arguments = calls.setdefault(call.index, ["", ""])
            name += call.function.name or ""
            calls[call.index] = [name, arguments + (call.function.arguments or "")]
    return reasoning, content, [(name, json.loads(text)) for name, text in calls.values()]


@pytest.mark.parametrize("text", TURNS)
@given(cuts=st.lists(st.integers(1, 120), max_size=8))
@settings(max_examples=30, deadline=None)
def test_streamed_calls_are_those_of_the_whole(text: str, cuts: list[int]) -> None:
    _, content, calls = whole(text)
    _, told, made = pieces(text, cuts)
    assert made == calls
    # What was told as text before it proved to be a bare call cannot be taken back.
    if not text.startswith('{"name"'):
        assert told.strip() == content.strip()


def test_what_can_be_proved_is_a_call_and_what_cannot_is_text() -> None:
    kiel = [("weather", {"city": "Kiel", "days": 2})]
    assert whole(TURNS[1]) == ("", "I look it up.", kiel * 2)
    assert whole(TURNS[5])[2] == kiel
    assert whole(TURNS[6])[2] == [("weather", {"city": "Kiel"})]
    for text in (TURNS[3], TURNS[7]):
        assert whole(text) == ("", text, [])


def test_reasoning_and_content_are_kept_apart() -> None:
    for text, cuts in ((TURNS[8], [8, 20, 28, 60]), (f"Kiel, then.</think>{CALL}", [])):
        reasoning, content, calls = whole(text, reasoning="toolguard")
        assert (reasoning, content) == ("Kiel, then.", "")
        assert [name for name, _ in calls] == ["weather"]
        if cuts:
            streamed = pieces(text, cuts, reasoning="toolguard")
            assert (streamed[0].strip(), streamed[2]) == (reasoning, calls)
    assert whole(CALL, reasoning="toolguard")[2] == whole(CALL)[2]
    assert pieces(CALL, [11, 40], reasoning="toolguard")[2] == whole(CALL)[2]


def test_a_format_is_named_and_ids_are_kept() -> None:
    reading = parser("toolguard:kimi_k2")
    _, _, calls = reading.parse(KIMI, request(), enable_auto_tools=True)
    assert [(call.id, call.name) for call in calls] == [("functions.weather:7", "weather")]
    assert json.loads(calls[0].arguments) == {"city": "Kiel"}


def test_the_request_tells_the_engine() -> None:
    asked = request(max_tokens=100, parallel_tool_calls=False, tool_choice="required")
    found = parser().adjust_request(asked)
    told = json.loads(found.vllm_xargs["toolguard"])
    assert (told["format"], told["tool_choice"], told["parallel"]) == ("hermes", "required", False)
    assert found.skip_special_tokens is False
    named = {"type": "function", "function": {"name": "weather"}}
    told = json.loads(parser().adjust_request(request(tool_choice=named)).vllm_xargs["toolguard"])
    assert told["tool_choice"] == "weather"


def test_a_response_format_of_its_own_is_left_alone() -> None:
    asked = request(response_format={"type": "json_object"})
    assert not parser().adjust_request(asked).vllm_xargs


def test_a_guarded_call_is_told_while_it_is_written() -> None:
    reading = parser()
    asked = reading.adjust_request(request())
    told = []
    for token in TOKENIZER.encode(CALL, add_special_tokens=False):
        text = TOKENIZER.decode([token])
        delta = reading.parse_delta(text, [token], asked, prompt_token_ids=[1], finished=False)
        told += delta.tool_calls if delta else []
    assert told[0].function.name == "weather"
    arguments = [call.function.arguments for call in told[1:]]
    assert len(arguments) > 3
    assert json.loads("".join(arguments)) == {"city": "Kiel", "days": 2}


def test_a_call_that_a_stop_string_cuts_is_not_told() -> None:
    cut = CALL[: CALL.index("Kiel")]
    reading = parser()
    asked = reading.adjust_request(request(stop=["Kiel"]))
    delta = reading.parse_delta(
        cut, TOKENIZER.encode(cut), asked, prompt_token_ids=[1], finished=False
    )
    assert delta is None
    last = reading.parse_delta("", [], asked, prompt_token_ids=[1], finished=True)
    assert not last.tool_calls


def test_an_error_names_the_field_of_the_request() -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        with pytest.raises(RequestError, match=f"^{field}=2 is too small"):
            parser().adjust_request(request(tool_choice="required", **{field: 2}))


def test_what_is_not_enforced_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    parameters = {"type": "object", "properties": {"sum": {"type": "number"}}, "not": {"a": 1}}
    tools = [{"type": "function", "function": {"name": "pay", "parameters": parameters}}]
    messages = [{"role": "user", "content": "?"}]
    made = ParserManager.get_parser(tool_parser_name="toolguard", enable_auto_tools=True)
    assert made is not None
    for _ in range(2):
        asked = ChatCompletionRequest(model="m", messages=messages, tools=tools)
        made(TOKENIZER, asked.tools).adjust_request(asked)
    assert ["pay: not" in text for text in caplog.messages] == [True]


def with_prompt(text: str, prompt: str, setting: str) -> tuple[str, str, str, str]:
    """The reasoning and the content of a turn after a prompt, whole and streamed sign by sign."""
    asked = request()
    told = TOKENIZER.encode(prompt, add_special_tokens=False)
    reading = parser(setting, reasoning=setting)
    reading.set_prompt_token_ids(told)
    reasoning, content, _ = reading.parse(text, asked, enable_auto_tools=True)
    reading, thought, said = parser(setting, reasoning=setting), "", ""
    for place, sign in enumerate(text, 1):
        ids = TOKENIZER.encode(sign, add_special_tokens=False)
        delta = reading.parse_delta(
            sign, ids, asked, prompt_token_ids=told, finished=place == len(text)
        )
        thought += (delta and delta.reasoning) or ""
        said += (delta and delta.content) or ""
    return reasoning or "", content or "", thought.strip(), said.strip()


def test_reasoning_that_the_prompt_opened_is_no_content() -> None:
    for text, thought, said in (
        ("Kiel, th", "Kiel, th", ""),
        ("Kiel.</think>It rains.", "Kiel.", "It rains."),
    ):
        assert with_prompt(text, "<think>\n", "toolguard") == (thought, said) * 2
    assert with_prompt("It rains.", "<think>\n\n</think>\n\n", "toolguard") == (
        ("", "It rains.") * 2
    )


def test_what_is_only_begun_as_a_call_leaves_no_tags_in_the_content() -> None:
    for text in ("<tool_call>", "I look.<tool_call>\n"):
        assert whole(text)[1] == text.partition("<")[0]
        assert pieces(text, [3, 9])[1] == text.partition("<")[0]


AT = CALL.index("2") + 1


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("setting", ["toolguard", "toolguard:hermes"])
def test_what_a_budget_cut_off_is_no_call(held: bool, setting: str) -> None:
    for text in (CALL[:AT], f"Both.\n{CALL}\n{CALL[:AT]}"):
        ids = TOKENIZER.encode(text, add_special_tokens=False)
        asked, reading = request(max_tokens=300), parser(setting)
        asked = reading.adjust_request(asked) if held else asked
        sound = text.count("</tool_call>")
        _, content, calls = reading.parse(
            text, asked, enable_auto_tools=True, model_output_token_ids=ids
        )
        assert len(calls or []) == sound
        assert not held or "<tool_call>" not in (content or "")
        reading = parser(setting)
        told = ""
        for place, token in enumerate(ids):
            delta = reading.parse_delta(
                TOKENIZER.decode([token]), [token], asked, prompt_token_ids=[1],
                finished=place == len(ids) - 1,
            )  # fmt: skip
            for call in delta.tool_calls if delta else []:
                told += call.function.arguments or ""
        # What was begun may have been told, but never as arguments that can be read.
        assert told.count("}") == sound


def test_a_call_that_is_said_in_full_stays_one_where_the_budget_ends() -> None:
    text = CALL.removesuffix("}\n</tool_call>")
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    reading = parser()
    asked = reading.adjust_request(request(max_tokens=300))
    _, _, (call,) = reading.parse(text, asked, enable_auto_tools=True, model_output_token_ids=ids)
    assert json.loads(call.arguments) == {"city": "Kiel", "days": 2}
