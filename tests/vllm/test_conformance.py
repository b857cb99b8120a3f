"""What vLLM's servers make of turns of all formats: as `read_turn` reads them, streamed or not.

`python -m benchmarks.conformance --part vllm` is the whole of it; here the ids are those of a small
tokenizer.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

pytest.importorskip("canitoolcall", reason="no canitoolcall: pip install '.[test]'")

from canitoolcall.checks import compare
from canitoolcall.chunking import ChunkStrategy
from canitoolcall.results import Status
from transformers import AddedToken, AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager
from vllm.tokenizers.hf import get_cached_tokenizer

import toolguard
from benchmarks.conformance.__main__ import takes_part
from benchmarks.conformance.cases import Case, cases
from benchmarks.conformance.ids import Ids
from benchmarks.conformance.reasons import listed
from benchmarks.conformance.served import served
from toolguard import FormatError, WireFormat
from toolguard.formats.reader import fixed_text

# What holds today: the number is lowered when more is read, and never raised.
MOST_FAILS = 14  # of 418; the bound is 25
BARE = {
    "qwen3-xml/llamacpp-coder-bare-function",
    "qwen3-xml/bug-coder-missing-tool-call-opener",
}
"""A call without its opener is told as text before it proves to be one: that is not taken back."""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALLS = [{"name": "weather", "arguments": {"city": "Kiel"}}]
TEXT, THOUGHT = "Let me look that up.", "The user asks about Kiel.\nOne call will do."
FORMATS = [name for name in toolguard.format_names() if name != "harmony"]  # vLLM's own reads it
THINKING = [name for name in FORMATS if WireFormat.load(name).reasonings]


@cache
def tokenizer(wire_format: WireFormat) -> Any:
    made = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    made.add_tokens([AddedToken(text, normalized=False) for text in wire_format.controls])
    return get_cached_tokenizer(made)


def served_turn(
    name: str, text: str, prompt: str, ended: bool = True, **options: Any
) -> Iterator[tuple[str, str, list[tuple[str, Any]]]]:
    """Its reasoning, its content and its calls: whole, and streamed character by character."""
    wire_format = WireFormat.load(name)
    messages = [{"role": "user", "content": "Kiel?"}]
    asked = ChatCompletionRequest(**{"model": "m", "messages": messages, "tools": TOOLS, **options})
    setting = f"toolguard:{name}"
    parser = ParserManager.get_parser(
        tool_parser_name=setting,
        reasoning_parser_name=setting if wire_format.reasonings else None,
        enable_auto_tools=True,
    )
    small = tokenizer(wire_format)
    before = small.encode(prompt, add_special_tokens=False)
    reading = parser(small, asked.tools)
    reading.set_prompt_token_ids(before)
    last = [small.eos_token_id if ended else 0]
    reasoning, content, calls = reading.parse(
        text, asked, enable_auto_tools=True, model_output_token_ids=last
    )
    made = [(call.name, json.loads(call.arguments)) for call in calls or []]
    yield reasoning or "", content or "", made
    reading, told, parts = parser(small, asked.tools), ["", ""], dict[int, list[str]]()
    for place, sign in enumerate(text, 1):
        over = place == len(text)
        delta = reading.parse_delta(
            sign, last if over else [0], asked, prompt_token_ids=before, finished=over
        )
        if delta is not None:
            told[0] += delta.reasoning or ""
            told[1] += delta.content or ""
            assert len({call.index for call in delta.tool_calls}) == len(delta.tool_calls)
            for call in delta.tool_calls:
                part = parts.setdefault(call.index, ["", ""])
                part[0] += call.function.name or ""
                part[1] += call.function.arguments or ""
    yield told[0], told[1], [(name, json.loads(text)) for name, text in parts.values()]


def seen(case: Case, number: int) -> Any:
    small = tokenizer(case.wire_format)
    ids = small.encode(case.fixture.raw_output, add_special_tokens=False)
    cut = ChunkStrategy("rand", seed=number)
    return served(case, Ids("bundled", small, ids, own=False), [cut])


def test_the_suites_fixtures_are_served_and_streamed_alike() -> None:
    failed: set[str] = set()
    unlike: set[str] = set()
    for number, case in enumerate(cases()):
        if takes_part("vllm", case):
            found = seen(case, number)
            if case.verdict(found)[0] not in (Status.PASS, Status.SOFT_PASS):
                failed.add(case.id)
            if compare(found.nonstream, *found.streams.values()) is Status.FAIL:
                unlike.add(case.id)
    explained = {entry.fixture for entry in listed() if entry.part == "vllm"}
    assert len(failed) <= MOST_FAILS
    assert failed == explained, "docs/conformance.md: what fails and why"
    assert unlike == BARE


@pytest.mark.parametrize("name", FORMATS)
def test_a_healthy_turn_is_served_as_it_is_read(name: str) -> None:
    wire_format = WireFormat.load(name)
    for text, thought, opened in itertools.product(("", TEXT), ("", THOUGHT), (False, True)):
        try:
            turn = toolguard.render(wire_format, CALLS, text, reasoning=thought, opened=opened)
        except FormatError:
            continue  # it has no place for that
        prompt = fixed_text(wire_format.reasoning.opening) if opened else ""
        made = [(call["name"], call["arguments"]) for call in CALLS]
        assert [*served_turn(name, turn, prompt)] == [(thought, text, made)] * 2


@pytest.mark.parametrize("name", THINKING)
def test_a_thought_that_is_cut_off_is_reasoning(name: str) -> None:
    opening = fixed_text(WireFormat.load(name).reasoning.opening)
    for size in range(1, len(THOUGHT), 7):
        for turn, prompt in ((THOUGHT[:size], opening), (opening + THOUGHT[:size], "")):
            told = [*served_turn(name, turn, prompt, ended=False)]
            assert told == [(THOUGHT[:size].strip(), "", [])] * 2


@pytest.mark.parametrize("options", [{"tools": None}, {"tool_choice": "none"}, {}])
def test_what_frames_a_reply_is_no_content(options: dict[str, Any]) -> None:
    shut = "<|close|>response<|sep|><|close|>message<|sep|>"
    think, reply = "<|open|>think<|sep|>", "<|open|>response<|sep|>"
    thought = f"{THOUGHT}<|close|>think<|sep|>{reply}{TEXT}{shut}"
    for prompt, turn, reasoning in (
        (reply, TEXT + shut, ""),
        (think, thought, THOUGHT),
        ("", think + thought, THOUGHT),
    ):
        for ended in (True, False):
            told = [*served_turn("kimi_k3", turn, prompt, ended, **options)]
            assert told == [(reasoning, TEXT, [])] * 2
