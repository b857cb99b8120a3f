"""What a turn's prompt has opened: told, taken from the prompt, or shown by the turn itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, Turn, TurnParser, WireFormat
from toolguard.errors import RequestError
from toolguard.formats.reader import fixed_text
from toolguard.grammar.request import reasoning_after

from .sizes import sizes
from .test_masks import encode, walks
from .test_parser import consistent, cut, merged, streamed
from .test_wire_formats import FORMATS, QUICK
from .turns import examples

REASONING = [name for name in FORMATS if WireFormat.load(name).reasoning.opening]
PLAIN = [name for name in REASONING if WireFormat.load(name).replies_plainly]
TOOLS: list[dict[str, Any]] = [
    {"name": "now", "parameters": {"type": "object", "properties": {}}},
    {"name": "log", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}},
]
TOOLSET = Toolset.of(TOOLS)
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
REPLY = "Hello!<|close|>response<|sep|><|close|>message<|sep|>"


def read(text: str, name: str = "hermes", **options: Any) -> Turn:
    return toolguard.read_turn(text, WireFormat.load(name), TOOLSET, **options)


@sizes(4, 8)
@pytest.mark.parametrize("name", REASONING)
def test_however_it_is_known_that_the_prompt_opened_the_reasoning_the_turn_is_the_same(
    name: str, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    wire_format = WireFormat.load(name)
    opening, closing = map(fixed_text, wire_format.reasoning)
    unthinking = [
        example
        for example in examples(name)
        if not example["reasoning"] and opening not in example["turn"]
    ]

    @settings(QUICK, max_examples=size)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        example = data.draw(st.sampled_from(unthinking))
        toolset = Toolset.of(example["tools"])
        thought = data.draw(st.sampled_from(["", "Hm.", "Is it 3 < 4?\n\nYes: `{}`.\n"]))
        text = f"{thought}{closing}{example['turn']}"
        turn = toolguard.read_turn(text, wire_format, toolset, opened=True)
        assert (turn.faults, turn.reasoning) == ((), thought.strip())
        assert turn.text == example["text"]
        assert [call.arguments for call in turn.calls] == [c["arguments"] for c in example["calls"]]
        assert toolguard.read_turn(text, wire_format, toolset) == turn
        assert toolguard.read_turn(text, wire_format, toolset, prompt=f"{opening}\n") == turn
        for opened in ("auto", True):
            whole = streamed(TurnParser(wire_format, toolset, opened=opened), [text])
            parts = streamed(TurnParser(wire_format, toolset, opened=opened), cut(data, text))
            consistent(parts)
            assert merged(parts) == merged(whole)
            assert parts[-1] == toolguard.TurnEnd(turn)
        assert toolguard.repair(text, toolset, wire_format).after == turn

        guard = Guard.compile(name, toolset, tokenizer, reasoning="open")
        ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
        assert walks(guard, ids)
        assert guard.read(ids).calls == turn.calls

    check()


@pytest.mark.parametrize("name", PLAIN)
def test_white_space_may_stand_before_reasoning_and_before_a_reply(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    opening, closing = map(fixed_text, WireFormat.load(name).reasoning)
    guard = Guard.compile(name, TOOLSET, tokenizer)
    end = guard.vocabulary.end_ids[0]
    for space in ("\n", " \n\n", "\n" * 16):
        thought = f"{space}{opening}Hm.{closing}Paris."
        for text in (thought, f"{space}Paris."):
            turn = read(text, name)
            assert (turn.state, turn.text) == ("healthy_response", "Paris.")
            assert turn.reasoning == ("Hm." if text == thought else "")
            assert streamed(TurnParser(guard.format, TOOLSET), text)[-1] == toolguard.TurnEnd(turn)
            assert walks(guard, [*encode(tokenizer, text), end])
    assert not walks(guard, [*encode(tokenizer, "\n" * 17 + thought.lstrip()), end])


@pytest.mark.parametrize("name", REASONING)
def test_a_prompt_says_what_it_has_opened(name: str) -> None:
    wire_format = WireFormat.load(name)
    opening, closing = map(fixed_text, wire_format.reasoning)
    for end in ("", "\n"):
        assert reasoning_after(f"Hi.{opening}{end}", wire_format) == "open"
        assert reasoning_after(f"Hi.{opening}{end}{closing}{end}", wire_format) == "none"
    assert reasoning_after("Hi.", wire_format) == "auto"
    if wire_format.answer.opening:
        assert reasoning_after(fixed_text(wire_format.answer.opening), wire_format) == "reply"


def test_of_a_tag_of_several_tokens_all_counts() -> None:
    k3 = WireFormat.load("kimi_k3")
    message = '<|open|>message role="assistant"<|sep|>'
    assert reasoning_after(f"{message}<|open|>think<|sep|>", k3) == "open"
    assert reasoning_after(f"{message}<|open|>response<|sep|>", k3) == "reply"
    assert reasoning_after(message, k3) == "auto"
    harmony = WireFormat.load("harmony")
    assert reasoning_after("Hi.<|end|><|start|>assistant", harmony) == "auto"
    assert reasoning_after("<|start|>assistant<|channel|>", harmony) == "auto"


@pytest.mark.parametrize(
    ("name", "text"),
    [("kimi_k3", REPLY), ("cohere_action", "Hello!<|END_RESPONSE|>"), ("harmony", "Hello!")],
)
def test_a_reply_that_the_prompt_opened(
    name: str, text: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompt = fixed_text(WireFormat.load(name).answer.opening)
    for options in ({"prompt": prompt}, {"opened": "reply"}, {} if name != "harmony" else None):
        if options is not None:
            turn = read(text, name, **options)
            assert (turn.state, turn.text, turn.reasoning) == ("healthy_response", "Hello!", "")
            assert toolguard.repair(text, TOOLS, name, **options).after == turn
    guard = Guard.compile(name, TOOLSET, tokenizer).after(encode(tokenizer, prompt))
    ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
    assert guard.reasoning == "reply"
    assert walks(guard, ids)
    assert guard.read(ids).text == "Hello!"


def test_calls_may_follow_the_reply_that_the_prompt_of_kimi_k3_opened(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    calls = toolguard.render(WireFormat.load("kimi_k3"), [{"name": "now", "arguments": {}}])
    text = f"I look.<|close|>response<|sep|>{calls}"
    for choice in ("auto", "required", "none"):
        guard = Guard.compile("kimi_k3", TOOLSET, tokenizer, tool_choice=choice, reasoning="reply")
        ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
        assert walks(guard, ids) == (choice != "none")
        reply = [*encode(tokenizer, REPLY), guard.vocabulary.end_ids[0]]
        assert walks(guard, reply) == (choice != "required")
    turn = read(text, "kimi_k3")
    assert (turn.state, turn.text, len(turn.calls)) == ("healthy_call", "I look.", 1)
    assert [fault.kind for fault in read("Hello", "kimi_k3").faults] == ["dropped_tag"]


def test_what_no_prompt_opens_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(RequestError, match="hermes"):
        read("Hi.", opened="reply")
    with pytest.raises(RequestError, match="hermes"):
        Guard.compile("hermes", TOOLSET, tokenizer, reasoning="reply")
    with pytest.raises(RequestError, match="no call can follow"):
        Guard.compile("harmony", TOOLSET, tokenizer, tool_choice="required", reasoning="reply")
    with pytest.raises(RequestError, match="opened"):
        read("Hi.", opened="no")


def test_what_the_turn_shows() -> None:
    turn = toolguard.classify("Hm.\n</think>\n\nParis.", TOOLS, "hermes")
    assert (turn.state, turn.reasoning, turn.text) == ("healthy_response", "Hm.", "Paris.")
    assert toolguard.classify("Hm.\n</think>\n\nParis.", TOOLS) == turn
    assert toolguard.repair("Hm.\n</think>\n\nParis.", TOOLS).after == turn
    for text in ("Use `</think>` to end it.", 'Say "</think>" then.'):
        assert read(text).reasoning == ""
    value = NOW.replace("now", "log").replace("{}", '{"text": "a </think> b"}')
    assert read(value).state == "healthy_call"
    assert read(f"Hm.</think>{value}").calls[0].arguments == {"text": "a </think> b"}
    assert read("Hm.</think>Paris.", opened=False).state == "polluted"
    assert read("Hm.", prompt="<think>\n").reasoning == "Hm."


@pytest.mark.parametrize("opened", ["auto", True])
@pytest.mark.parametrize(
    "text",
    [
        f"{NOW}\n</think>\n\nIt is three.",
        f"I could.\n{NOW}\n</think>\n\n{NOW}",
        f"Hm.{NOW}</think>",
    ],
)
def test_a_call_that_was_only_thought_of_is_none(text: str, opened: Any) -> None:
    turn = read(text, opened=opened)
    if opened is True and text.endswith(NOW):  # the thought is no call, and the call behind it is
        assert (turn.state, len(turn.calls)) == ("healthy_call", 1)
        assert turn.reasoning == f"I could.\n{NOW}"
        assert turn.calls[0].span[0] > text.index("</think>")
    else:
        assert (turn.state, turn.calls) == ("polluted", ())
        assert "call_in_reasoning" in [fault.kind for fault in turn.faults]
    assert streamed(TurnParser(WireFormat.load("hermes"), TOOLSET, opened=opened), text)[
        -1
    ] == toolguard.TurnEnd(turn)
    repaired = toolguard.repair(text, TOOLS, "hermes", opened=opened)
    # At most the call behind the reasoning comes back.
    thought = repaired.after.raw.rindex("</think>")
    assert all(call.span[0] > thought for call in repaired.after.calls)
    assert bool(repaired.after.calls) == (repaired.confidence != "refused")


def test_damage_behind_reasoning_that_the_prompt_opened_is_repaired() -> None:
    for text in (f"Hm.\n</think>\n{NOW[:-12]}", f"Hm.</think></think>{NOW}"):
        repaired = toolguard.repair(text, TOOLS, "hermes")
        assert [call.name for call in repaired.after.calls] == ["now"]
        assert repaired.after.reasoning == "Hm."


def test_rows_say_what_their_prompts_opened() -> None:
    row = {"text": "Hm.", "tools": TOOLS, "prompt": "<think>\n"}
    assert toolguard.Layout(format="hermes").classified(row)[0].reasoning == "Hm."
    assert toolguard.Layout(format="hermes", opened=False).classified(row)[0].text == "Hm."
    named = {**row, "prompt": [], "begun": "<think>\n"}
    assert toolguard.Layout(format="hermes").classified(named)[0].text == "Hm."
    layout = toolguard.Layout(format="hermes", prompt_column="begun")
    assert layout.classified(named)[0].reasoning == "Hm."
    assert layout.repairs(named)[None].before.reasoning == "Hm."


@pytest.mark.parametrize("name", REASONING)
def test_control_tokens_in_closed_reasoning_are_words(name: str) -> None:
    wire_format = WireFormat.load(name)
    names = {wire_format.opener, wire_format.closer} & wire_format.sayable
    for said in sorted(names - {node.text for node in wire_format.reasoning.closing}):
        call = [{"name": "now", "arguments": {}}]
        text = toolguard.render(wire_format, call, reasoning=f"Hm {said} so.")
        turn = toolguard.read_turn(text, wire_format, TOOLSET, opened=False)
        thought = turn.reasoning, len(turn.calls)
        assert (turn.state, *thought) == ("healthy_call", f"Hm {said} so.", 1)
        parser = TurnParser(wire_format, TOOLSET, opened=False)
        assert streamed(parser, text)[-1] == toolguard.TurnEnd(turn)
