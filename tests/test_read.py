"""A finished turn reads as the parser reads it, whatever short cut is taken, and in linear time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolguard
from toolguard import Toolset, Turn, TurnEnd, TurnParser, WireFormat
from toolguard.formats.reader import marker

from .sizes import sizes
from .test_wire_formats import QUICK, SIGNS
from .turns import examples


def parsed(text: str, wire_format: WireFormat, toolset: Toolset) -> Turn:
    """What the parser says of a turn, without any short cut."""
    parser = TurnParser(wire_format, toolset)
    parser.feed(text)
    end = parser.finish()[-1]
    assert isinstance(end, TurnEnd)
    return end.turn


TEXTS = (
    *("", " ", "\n\n", "Hello.", "  Hello, \n", "caf\u00e9 ", "\u3000Hello", "\x1cHello\x1c"),
    *(
        " " * 16 + "Hello.",
        " " * 17 + "Hello.",
        "a get_time b",
        "[1]",
        '{"a": 1}',
        "Hi\n```\nx\n```",
    ),
    *("a \udb01 b", "a \udc00 b", "a <tool_call> b", '{"name": "ping", "arguments": {}}'),
)


@pytest.mark.parametrize("name", toolguard.format_names())
def test_short_cuts_change_nothing(name: str, tools: list[dict[str, Any]]) -> None:
    wire_format, toolset = WireFormat.load(name), Toolset.of(tools)
    for text in TEXTS:
        assert toolguard.read_turn(text, wire_format, toolset) == parsed(text, wire_format, toolset)


AROUND = ("user\n", "\nassistant\n", "\nexecution result: 1", " \n" * 9, "[", '{"name": "')
"""What stands beside the calls of sick models."""


@sizes(12, 30)
@pytest.mark.parametrize("name", toolguard.format_names())
def test_no_damage_is_read_otherwise_than_by_the_parser(name: str, size: int) -> None:
    wire_format = WireFormat.load(name)
    controls = wire_format.controls
    every = [(example["turn"], Toolset.of(example["tools"])) for example in examples(name)]

    @settings(QUICK, max_examples=size)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        turn, toolset = data.draw(st.sampled_from(every))
        named = [f'{{"name": "{tool}", "arguments": {{}}}}' for tool in toolset.names]
        text = data.draw(st.sampled_from([turn, *named, *toolset.names, controls[0], ""]))
        text = data.draw(st.sampled_from(["", " ", "\n"])).join(
            [text] * data.draw(st.integers(1, 5))
        )
        signs = [*SIGNS, *AROUND, *toolset.names, *controls]
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.sampled_from([0, len(text)]) | st.integers(0, len(text)))
            sign = data.draw(st.sampled_from(signs))
            text = text[:place] + sign + text[place + data.draw(st.integers(0, 1)) :]
        for index in data.draw(st.sets(st.integers(0, len(controls) - 1), max_size=2)):
            text = text.replace(controls[index], marker(index))
        # the order of keys counts
        read = toolguard.read_turn(text, wire_format, toolset)
        assert repr(read) == repr(parsed(text, wire_format, toolset)), text
        assert wire_format.may_call(read.raw) or not read.calls or read.faults

    check()


def test_time_grows_with_depth_and_not_with_its_square(tools: list[dict[str, Any]]) -> None:
    hermes, toolset = WireFormat.load("hermes"), Toolset.of(tools)
    text = '<tool_call>\n{"name": "ping", "arguments": {"x": '

    def seconds(depth: int) -> float:
        started = time.process_time()
        toolguard.read_turn(text + "[" * depth, hermes, toolset)
        return time.process_time() - started

    seconds(10)
    ratio = min(seconds(8000) for _ in range(3)) / min(seconds(1000) for _ in range(3))
    assert ratio < 20  # 8 is linear, 64 is quadratic


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text('ab"\\/\u00e9\n<{', max_size=6)
    | st.sampled_from(["<tool_call>", "</tool_call>", "\udc00", "", "9" * 70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", max_size=2), inner),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_calls_read_without_the_parser_are_what_it_reads(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(("hermes", "functionary_v31", "internlm2", "kimi_k2")))
    wire_format = WireFormat.load(name)
    toolset = Toolset.of([{"name": "go", "parameters": {"properties": {"x": {"type": "integer"}}}}])
    calls = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["go", "gone"]),
                    "arguments": st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3),
                }
            ),
            min_size=1,
            max_size=3,
        )
    )
    text = toolguard.render(wire_format, calls)
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + data.draw(st.sampled_from([" ", "\n", '"', "}", "x", ""]))
            + text[place + 1 :]
        )
    text += data.draw(st.sampled_from(["", "\n", " \n ", "\n" * 20, "Bye."]))
    assert repr(toolguard.read_turn(text, wire_format, toolset)) == repr(
        parsed(text, wire_format, toolset)
    )


@pytest.mark.parametrize("name", ["functionary_v31", "glm_xml", "hermes", "internlm2"])
@pytest.mark.parametrize("junk", ["junk", " junk", "!", "2<"])
def test_a_sound_call_stays_one_whatever_follows_its_closer(name: str, junk: str) -> None:
    wire_format, toolset = WireFormat.load(name), Toolset.of([{"name": "go"}])
    text = toolguard.render(wire_format, [{"name": "go", "arguments": {}}])
    closer = marker(wire_format.controls.index(wire_format.closer))
    for spelled in (text, text.replace(wire_format.closer, closer)):
        turn = toolguard.read_turn(spelled + junk, wire_format, toolset)
        assert [call.name for call in turn.calls] == ["go"]
        assert [fault.kind for fault in turn.faults] == ["text_after_call"]
