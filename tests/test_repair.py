"""Repair: the calls that can be proved come back, and nothing else does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import FormatError, RequestError, WireFormat

from .sizes import sizes

FLIGHT = {
    "name": "get_flight",
    "parameters": {
        "type": "object",
        "properties": {
            "origin": {"type": "string"},
            "destination": {"type": "string"},
            "bags": {"type": "integer"},
            "options": {"type": "object", "properties": {"meal": {"type": "boolean"}}},
        },
        "required": ["origin"],
        "additionalProperties": False,
    },
}
LATEST = {"name": "latest_id", "parameters": {"type": "object", "properties": {}}}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": tool} for tool in (FLIGHT, LATEST)]
ARGUMENTS = {"origin": "Beijing", "destination": "Rome", "bags": 3}
BODY = (
    '{"name": "get_flight", "arguments": {"origin": "Beijing", "destination": "Rome", "bags": 3}}'
)


def tagged(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


CALL = tagged(BODY)

MENDED = {
    "equals_to_colon": tagged(BODY.replace('"origin":', '"origin"=')),
    "bracket_kind": tagged(BODY[:-2] + ")}"),
    "straight_quotes": tagged(BODY.replace('"Beijing"', "\u201cBeijing\u201d")),
    "drop_role": tagged("user" + BODY),
    "drop_stray": tagged(">" + BODY),
    "drop_comma": tagged(BODY.replace("3}", "3,}")),
    "drop_control": "<tool_call>\n" + CALL,
    "add_quote": tagged(BODY.replace('"origin"', 'origin"')),
    "quote_word": tagged(BODY.replace('"origin"', "origin")),
    "add_closer": tagged(BODY[:-1]),
    "add_structure": tagged(BODY.replace('"arguments": {', "").replace("}}", "}")),
    "rename_field": tagged(BODY.replace("arguments", "parameters")),
    "unwrap_double_encoding": tagged(
        json.dumps({"name": "get_flight", "arguments": json.dumps(ARGUMENTS)})
    ),
    "split_pair": tagged(BODY.replace('"origin": "Beijing"', '"origin=Beijing"')),
}
FRAMED = {
    "cut_run_on": CALL + "\nassistant\nuser\nuser",
    "cut_response": CALL + '\n<tool_response>\n{"status": "ok"}\n</tool_response>',
    "cut_text": CALL + "\nI have called it for you.",
    "cut_controls": CALL + "\n<tool_call>",
    "drop_head": "user\n" + CALL,
    "add_closer": "<tool_call>\n" + BODY,
    "add_opener": BODY + "\n</tool_call>",
    "reroute": "[get_flight(origin='Beijing', destination='Rome', bags=3)]",
}


@pytest.mark.parametrize("rule", MENDED)
def test_a_damaged_call_is_mended_by_the_fewest_edits(rule: str) -> None:
    repair = toolguard.repair(MENDED[rule], TOOLS, "hermes")
    assert [(call.name, call.arguments) for call in repair.after.calls] == [
        ("get_flight", ARGUMENTS)
    ]
    assert repair.confidence == "minimal"
    assert rule in {edit.rule for edit in repair.edits}
    assert repair.after.state == "healthy_call"


@pytest.mark.parametrize("rule", FRAMED)
def test_a_call_that_stands_there_is_given_back_as_it_is(rule: str) -> None:
    repair = toolguard.repair(FRAMED[rule], TOOLS, "hermes")
    assert [call.arguments for call in repair.after.calls] == [ARGUMENTS]
    assert repair.confidence == "exact"
    assert rule in {edit.rule for edit in repair.edits}


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n",
        "<tool_call>\n" + BODY[:60],  # in the middle of a string
        "<tool_call>\n" + BODY[:-2],  # more arguments could have come
        "<tool_call>\n" + BODY.replace("3}}", "3"),
        tagged(BODY.replace('"Beijing"', 'latest_id()["id"]')),
        tagged(BODY.replace("get_flight", "get_fligth")),
        tagged('{"name": "get_flight", "arguments": {"destination": "Rome"}}'),
        tagged(BODY.replace('"Beijing"', "")),
        "For example:\n" + BODY,
        f"It broke here: `{tagged('user' + BODY)}`. That was last week.",
        f"<think>\nI could say {CALL} now.\n</think>\n\nShall I book it?",
    ],
)
def test_what_cannot_be_proved_is_refused_and_left_alone(text: str) -> None:
    repair = toolguard.repair(text, TOOLS, "hermes")
    assert repair.after is repair.before
    assert repair.text == text
    assert repair.edits == ()
    assert repair.after.calls == ()
    assert repair.confidence == ("refused" if repair.before.faults else "exact")
    assert bool(repair.reason) == bool(repair.before.faults)


@pytest.mark.parametrize("value", ["{a:b c:2}", "{a:b:2}", "a b:2"])
def test_no_object_is_made_of_a_value_that_lost_its_quotes(value: str) -> None:
    tools = [{"name": "f", "parameters": {"properties": {"m": {"type": "object"}}}}]
    text = f"<|tool_call>call:f{{m:{value}}}<tool_call|>"
    repair = toolguard.repair(text, tools, "gemma4")
    assert (repair.confidence, repair.after.calls) == ("refused", ())


def test_two_repairs_that_call_differently_are_both_shown_and_neither_is_taken() -> None:
    xml = WireFormat.load("qwen3_xml")
    whole = toolguard.render(xml, [{"name": "get_flight", "arguments": ARGUMENTS}])
    text = whole.replace("origin>", "origin,")  # for the bracket, or a part of the value?
    repair = toolguard.repair(text, TOOLS, xml)
    assert repair.confidence == "ambiguous"
    assert [calls[0].arguments["origin"] for calls in repair.candidates] == [
        ",\nBeijing",
        "Beijing",
    ]
    assert repair.after is repair.before
    assert repair.text == text
    assert repair.reason


def test_edits_say_what_became_of_the_text() -> None:
    for text in (*MENDED.values(), *FRAMED.values()):
        repair = toolguard.repair(text, TOOLS, "hermes")
        written, place = "", 0
        for edit in repair.edits:
            assert text[slice(*edit.span)] == edit.before
            written += text[place : edit.span[0]] + edit.after
            place = edit.span[1]
        assert written + text[place:] == repair.text
        assert json.loads(json.dumps(repair.to_json()))["after"]["raw"] == repair.text


def test_repairing_a_repaired_turn_changes_nothing() -> None:
    for text in (*MENDED.values(), *FRAMED.values()):
        first = toolguard.repair(text, TOOLS, "hermes")
        again = toolguard.repair(first.text, TOOLS, "hermes")
        assert again.text == first.text
        assert again.edits == ()
        assert again.after.calls == first.after.calls


@pytest.mark.parametrize("name", toolguard.format_names())
def test_a_healthy_turn_comes_back_byte_for_byte_in_every_format(name: str) -> None:
    text = toolguard.render(WireFormat.load(name), [{"name": "get_flight", "arguments": ARGUMENTS}])
    repair = toolguard.repair(text, TOOLS, name)
    assert repair.text == text
    assert repair.edits == ()
    assert [call.arguments for call in repair.after.calls] == [ARGUMENTS]


@pytest.mark.parametrize("name", toolguard.format_names())
def test_a_call_in_any_format_is_rerouted_to_the_native_one(name: str) -> None:
    native = "hermes" if name != "hermes" else "kimi_k2"
    text = toolguard.render(WireFormat.load(name), [{"name": "get_flight", "arguments": ARGUMENTS}])
    repair = toolguard.repair(text, TOOLS, native)
    assert [call.arguments for call in repair.after.calls] == [ARGUMENTS]
    assert repair.wire_format == native
    assert toolguard.read_turn(repair.text, WireFormat.load(native), _toolset()).faults == ()


def _toolset() -> toolguard.Toolset:
    return toolguard.Toolset.of(TOOLS)


NOISE = st.sampled_from([*"{}[]()\":=,<>'`", "\u201c", "user", "<tool_call>", "</tool_call>", "\n"])


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str]:
    """A format, and a turn in it with some characters lost, doubled or put in."""
    name = draw(st.sampled_from(toolguard.format_names()))
    arguments = {
        "origin": draw(st.text("ab\u00e9 ,}\"'\\", min_size=1, max_size=8)),
        "bags": draw(st.integers(-20, 2000)),
    }
    text = toolguard.render(WireFormat.load(name), [{"name": "get_flight", "arguments": arguments}])
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 3)))
        text = text[:start] + draw(st.just("") | NOISE) + text[end:]
    return name, text


@sizes(130, 400)
def test_whatever_was_damaged_nothing_is_invented(size: int) -> None:
    @settings(max_examples=size, deadline=None)
    @given(damaged())
    def check(turn: tuple[str, str]) -> None:
        nothing_is_invented(*turn)

    check()


def nothing_is_invented(name: str, text: str) -> None:
    repair = toolguard.repair(text, TOOLS, name)
    for call in repair.after.calls:
        assert call.name in text
        for said in scalars(call.arguments):
            assert occurs(said, text)
    if repair.edits:
        again = toolguard.repair(repair.text, TOOLS, name)
        assert again.text == repair.text


def scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from scalars(inner)
    else:
        yield value


def occurs(said: Any, text: str) -> bool:
    """Letters and digits in order: quotes and escapes may have been mended."""
    if isinstance(said, str):
        words = re.findall(r"\w+", said)
        return bool(re.search(r"\W*".join(map(re.escape, words)), text)) if words else True
    return str(said).lower() in text.lower()


@sizes(100, 300)
def test_any_text_is_read_without_an_error(size: int) -> None:
    @settings(max_examples=size, deadline=None)
    @given(st.text(max_size=200) | st.lists(NOISE | st.just(BODY), max_size=30).map("".join))
    def check(text: str) -> None:
        assert toolguard.repair(text, TOOLS, "hermes").before.raw == text

    check()


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 10_000 + BODY,
        tagged('{"name": "get_flight", "arguments": {"origin": ' + "[" * 10_000),
        "get_flight" + " " * 1_000_000,
        tagged(BODY.replace("Beijing", "x" * 1_000_000) + ")"),
        (BODY + "\n") * 5_000,
    ],
    ids=["openers", "brackets", "spaces", "long string", "bodies"],
)
def test_long_and_hostile_turns_are_read_to_the_end(text: str) -> None:
    repair = toolguard.repair(text, TOOLS, "hermes")
    assert repair.before.raw == text
    assert len(repair.after.calls) <= 1


def test_ids_are_kept_as_they_were_sampled(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer(tagged("user" + BODY))["input_ids"]
    repair = toolguard.repair(ids, TOOLS, tokenizer=tokenizer)
    assert repair.wire_format == "hermes"
    assert [call.arguments for call in repair.after.calls] == [ARGUMENTS]
    assert repair.ids == tuple(ids)
    with pytest.raises(RequestError, match="tokenizer"):
        toolguard.repair(ids, TOOLS)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(FormatError, match="unknown wire format 'hermez'"):
        toolguard.repair(CALL, TOOLS, "hermez")


@pytest.mark.parametrize(
    "damaged", ["functions_get_flight_0", "functions.get_flight", "get_flight"]
)
def test_an_id_of_kimi_is_restored(damaged: str) -> None:
    kimi = WireFormat.load("kimi_k2")
    whole = toolguard.render(kimi, [{"name": "get_flight", "arguments": ARGUMENTS}])
    repair = toolguard.repair(whole.replace("functions.get_flight:0", damaged), TOOLS, kimi)
    assert repair.text == whole
    assert repair.confidence == "minimal"
