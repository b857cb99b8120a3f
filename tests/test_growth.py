"""What a token costs does not grow with the turn: times at twice the length, never times."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from toolguard import Guard, Toolset, TurnParser, WireFormat, format_names, read_turn, render

_PIECE = 'if x < 3:\n    s = "a\\\\b \\"q\\" <b> \'z\'"  # `é`\n'
_TOOL = {
    "name": "edit",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
}
_TOOLS = Toolset.of([_TOOL])
_LENGTH = 16_000
_GROWTH = 3.0
"""By how much the time may grow where the length doubles; a step that looks at all that was before
has 4, and some hundred steps of that kind are seen at once."""


def _turn(name: str, length: int) -> str:
    content = _PIECE * (length // len(_PIECE))
    call = {"name": "edit", "arguments": {"path": "a.py", "content": content}}
    return render(WireFormat.load(name), [call])


def _is_linear(work: Callable[[str], None], name: str) -> bool:
    """Whether the time grows with the length, in one of three tries: what is quadratic is so in
    each."""
    once, twice = _turn(name, _LENGTH), _turn(name, 2 * _LENGTH)
    work(once)  # what is made once for a format
    return any(_seconds(work, twice) < _GROWTH * _seconds(work, once) for _ in range(3))


def _seconds(work: Callable[[str], None], turn: str) -> float:
    started = time.process_time()
    work(turn)
    return time.process_time() - started


@pytest.mark.parametrize("name", format_names())
def test_feeding_by_small_chunks_is_linear(name: str) -> None:
    def feed(turn: str) -> None:
        parser = TurnParser(WireFormat.load(name), _TOOLS)
        for start in range(0, len(turn), 4):
            parser.feed(turn[start : start + 4])

    assert _is_linear(feed, name)


@pytest.mark.parametrize("name", format_names())
def test_reading_is_linear(name: str) -> None:
    def read(turn: str) -> None:
        for _ in range(5):
            assert read_turn(turn, WireFormat.load(name), _TOOLS).calls

    assert _is_linear(read, name)


@pytest.mark.parametrize("name", ["hermes", "qwen3_xml", "glm_xml", "gemma4", "lfm2", "minicpm5"])
def test_accepting_and_watching_is_linear(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    guard = Guard.compile(name, [_TOOL], tokenizer)

    def accept(turn: str) -> None:
        ids = tokenizer(turn, add_special_tokens=False, verbose=False)["input_ids"]
        state = guard.start(2 * len(ids) + 100)
        for token in ids:
            assert state.position
            assert not (state.may_mention and state.opened_in_prose)
            assert state.retrace(token)

    assert _is_linear(accept, name)
