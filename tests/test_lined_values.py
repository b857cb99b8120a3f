"""Values on lines of their own: markup that is set apart in a line is a word, else it is meant."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, TurnParser, WireFormat

NOTE = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["path", "content"],
}
TOOLS = Toolset.of([{"name": "note", "parameters": NOTE}])
TAGS = {
    "qwen3_xml": ("<parameter=path>", "</parameter>", "</function>"),
    "qwen3_xml+bare": ("<parameter=path>", "</parameter>", "</function>"),
    "dots": ('<parameter name="path">', "</parameter>", "</invoke>"),
}
SAID = (
    "Close it with OPEN or CLOSE and END in a line.",
    "Use `CLOSE` and (CLOSE), then go on.",
    "First OPEN twice: OPEN again, CLOSE, and so on.",
    "END and CLOSE here\nand a line",
)
every_format = pytest.mark.parametrize("name", TAGS)


def told(name: str, text: str) -> str:
    opening, closing, end = TAGS[name]
    return text.replace("OPEN", opening).replace("CLOSE", closing).replace("END", end)


def rendered(name: str, content: str) -> str:
    arguments = {"content": content, "path": "a.md"}
    calls = [{"name": "note", "arguments": arguments}]
    return toolguard.render(WireFormat.load(name), calls)


@every_format
@pytest.mark.parametrize("said", SAID)
def test_it_is_a_word_to_mask_reader_and_stream(
    name: str, said: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile(name, TOOLS, tokenizer)
    content = told(name, said)
    text = rendered(name, content)
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], guard.vocabulary.end_ids[0]]
    state = guard.start(len(ids) + 200)
    assert all(state.accept(token) for token in ids)
    turn = toolguard.read_turn(text, guard.format, TOOLS)
    assert turn.state == "healthy_call"
    assert [call.arguments for call in turn.calls] == [{"content": content, "path": "a.md"}]
    assert guard.read(ids).calls == turn.calls
    assert toolguard.repair(text, TOOLS, guard.format).after.raw == text
    for size in (1, 3, 7):
        parser = TurnParser(guard.format, TOOLS)
        for start in range(0, len(text), size):
            parser.feed(text[start : start + size])
        end = parser.finish()[-1]
        assert isinstance(end, toolguard.TurnEnd)
        assert end.turn == turn


@every_format
@pytest.mark.parametrize(
    "said",
    [
        "textCLOSE and more",  # not set apart
        "text CLOSE\nmore",
        "text CLOSE OPEN more",
        "text\nOPEN\nmore",
        "textOPENmore",
        "text OPENmore",
    ],
)
def test_elsewhere_it_is_meant(name: str, said: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """A value that holds it has lost what ends it, or was ended already: no call, and no mask."""
    guard = Guard.compile(name, TOOLS, tokenizer)
    text = rendered(name, told(name, said))
    turn = toolguard.read_turn(text, guard.format, TOOLS)
    assert turn.faults
    assert not turn.calls
    state = guard.start(400)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert not all(state.accept(token) for token in ids)


@every_format
def test_a_turn_that_says_it_ends_in_time(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile(name, TOOLS, tokenizer)
    text = rendered(name, told(name, SAID[0]))
    wanted = tokenizer(text, add_special_tokens=False)["input_ids"]
    for budget in range(8, len(wanted) + 2, 5):
        state = guard.start(budget)
        for token in [*wanted, guard.vocabulary.end_ids[0]]:
            state.mask([token])
            if state.cut is not None:
                break
            assert state.accept(token)
        while not state.done:
            token, *_ = state.narrow([])
            assert state.accept(token)
        assert len(state.ids) <= budget
        assert not guard.read(state.ids, cut=state.cut).calls or budget >= len(wanted) - 30
