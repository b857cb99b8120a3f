"""The incremental parser: any chunks say the same, as soon as it is certain."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, TurnParser, WireFormat

from .sizes import sizes
from .test_masks import encode
from .test_wire_formats import FORMATS, QUICK, SIGNS
from .turns import examples


def merged(events: Iterable[toolguard.Event]) -> list[Any]:
    """Events, deltas that follow one another put together."""
    result: list[Any] = []
    for event in events:
        fields = {name: getattr(event, name) for name in event.__slots__}
        if "text" in fields and result and type(result[-1][0]) is type(event):
            text = result[-1][1].pop("text")
            fields["text"] = text + fields["text"]
            result.pop()
        result.append((event, fields))
    return [(type(event).__name__, fields) for event, fields in result]


def streamed(parser: TurnParser, chunks: Iterable[str | Sequence[int]]) -> list[toolguard.Event]:
    return [event for chunk in chunks for event in parser.feed(chunk)] + [*parser.finish()]


def cut(data: st.DataObject, whole: Any) -> list[Any]:
    """The whole in chunks, some of them empty, or one by one."""
    if data.draw(st.booleans()):
        return [whole[i : i + 1] for i in range(len(whole))]
    borders = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    places = zip([0, *borders], [*borders, len(whole)], strict=True)
    return [whole[a:b] for a, b in places]


def told(events: Iterable[toolguard.Event], kind: type[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def consistent(events: Sequence[toolguard.Event]) -> None:
    """What the events say is what their turn says."""
    end = events[-1]
    assert isinstance(end, toolguard.TurnEnd)
    turn = end.turn
    assert told(events, toolguard.TextDelta) == turn.text
    assert told(events, toolguard.ReasoningDelta) == turn.reasoning
    ends = [event for event in events if isinstance(event, toolguard.CallEnd)]
    thought = any(fault.kind == "call_in_reasoning" for fault in turn.faults)
    assert turn.calls == (() if thought else tuple(end.call for end in ends))
    faults = [event.fault for event in events if isinstance(event, toolguard.FaultFound)]
    assert tuple(faults) == turn.faults
    for end in ends:
        own = [e for e in events if getattr(e, "index", None) == end.index]
        assert isinstance(own[0], toolguard.CallStart)
        assert [e.name for e in own if isinstance(e, toolguard.CallName)] == [end.call.name]
        assert json.loads(told(own, toolguard.ArgumentsDelta)) == end.call.arguments


@sizes(8, 20)
@pytest.mark.parametrize("name", FORMATS)
def test_any_chunks_say_the_same(name: str, size: int, tokenizer: PreTrainedTokenizerBase) -> None:
    every = examples(name)
    wire_format = WireFormat.load(name)

    @settings(QUICK, max_examples=size)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        example = data.draw(st.sampled_from(every))
        toolset = Toolset.of(example["tools"])
        text = example["turn"]
        for place in sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=2))):
            sign = data.draw(st.sampled_from([*SIGNS, *wire_format.controls, '"\\u00', "é"]))
            text = text[:place] + sign + text[place + data.draw(st.integers(0, 1)) :]
        whole = streamed(TurnParser(wire_format, toolset), [text])
        consistent(whole)
        chunks = cut(data, text)
        assert merged(streamed(TurnParser(wire_format, toolset), chunks)) == merged(whole), chunks

        guard = Guard.compile(name, toolset, tokenizer)
        ids = encode(tokenizer, text)
        parts = streamed(guard.parser(), cut(data, ids))
        consistent(parts)
        assert merged(parts) == merged(streamed(guard.parser(), [ids]))

    check()


@pytest.mark.parametrize("name", FORMATS)
def test_calls_are_told_before_the_turn_ends(name: str) -> None:
    """Nothing but the end of the last call waits for the end of the turn."""
    (example, *_) = [e for e in examples(name) if e["calls"] and e["calls"][0]["arguments"]]
    parser = TurnParser(WireFormat.load(name), Toolset.of(example["tools"]))
    events = [event for sign in example["turn"] for event in parser.feed(sign)]
    names = [event.name for event in events if isinstance(event, toolguard.CallName)]
    assert names == [call["name"] for call in example["calls"]]
    assert told(events, toolguard.TextDelta) == example["text"]
    consistent([*events, *parser.finish()])


def hermes(tools: list[dict[str, object]]) -> TurnParser:
    return TurnParser(WireFormat.load("hermes"), Toolset.of(tools), opened=False)


def test_text_is_told_as_it_comes_but_not_what_may_become_a_control_token(
    tools: list[dict[str, object]],
) -> None:
    parser = hermes(tools)
    assert parser.feed("Let me ") == (toolguard.TextDelta("Let me"),)
    assert parser.feed("see <tool") == (toolguard.TextDelta(" see"),)
    assert parser.feed("s> and") == (toolguard.TextDelta(" <tools> and"),)
    assert parser.feed("\n<tool_call>") == ()


def test_a_long_string_is_told_while_it_is_written(tools: list[dict[str, object]]) -> None:
    parser = hermes(tools)
    events = parser.feed('<tool_call>{"name": "get_time", "arguments": {"zone": "a long')
    assert events == (
        toolguard.CallStart(0),
        toolguard.CallName(0, "get_time"),
        toolguard.ArgumentsDelta(0, '{"zone": "a long'),
    )
    assert parser.feed(" story\\") == (toolguard.ArgumentsDelta(0, " story"),)
    assert parser.feed("n") == (toolguard.ArgumentsDelta(0, "\\n"),)


@pytest.mark.parametrize("name", ["get_time", "no_tool"])
def test_arguments_before_the_name_are_told_before_it(
    name: str, tools: list[dict[str, object]]
) -> None:
    text = f'<tool_call>{{"arguments": {{"zone": "CET"}}, "name": "{name}"}}</tool_call>'
    for chunks in ([text], list(text)):
        kinds = [kind for kind, _ in merged(streamed(hermes(tools), chunks))]
        assert kinds[:2] == ["CallStart", "ArgumentsDelta"]
        assert kinds[2] == ("CallName" if name == "get_time" else "FaultFound")


def test_what_is_wrong_for_certain_is_told_at_once(
    tools: list[dict[str, object]], tokenizer: PreTrainedTokenizerBase
) -> None:
    parser = hermes(tools)
    (start, fault) = parser.feed('<tool_call>{"name": "get_tim", ')
    assert start == toolguard.CallStart(0)
    assert isinstance(fault, toolguard.FaultFound)
    assert fault.fault.kind == "unknown_tool"

    parser = Guard.compile("hermes", tools, tokenizer).parser()
    assert parser.feed(encode(tokenizer, '<tool_call>{"name')) == ()
    (fault,) = parser.feed(encode(tokenizer, "<|im_start|>"))
    assert isinstance(fault, toolguard.FaultFound)
    assert fault.fault.kind == "role_in_call"


def test_ids_split_inside_a_character_are_read_whole(
    tools: list[dict[str, object]], tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    ids = encode(tokenizer, "日本語 😀")
    events = streamed(guard.parser(), [[token] for token in ids])
    assert told(events, toolguard.TextDelta) == "日本語 😀"


def test_ids_without_a_spelling_are_refused(tools: list[dict[str, object]]) -> None:
    with pytest.raises(toolguard.RequestError, match=r"Guard\.parser"):
        hermes(tools).feed([1, 2])
