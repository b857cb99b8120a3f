"""What a token costs does not grow with the turn: times at twice the length, never times."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from transformers import PreTrainedTokenizerBase

import toolguard
from benchmarks.growth import EDIT, edit, listed
from toolguard import Guard, Toolset, TurnParser, WireFormat, read_turn

from .sizes import formats, sizes

_TOOLS = Toolset.of([EDIT])
_LENGTHS = sizes(8_000, 32_000)
_GROWTH = 3.0
"""By how much the time may grow where the length doubles; a step that looks at all that was before
has 4, and some hundred steps of that kind are seen at once."""


def _is_linear(work: Callable[[str], None], name: str, length: int) -> bool:
    """Whether the time grows with the length, in one of some tries: what is quadratic is so in
    each."""
    once, twice = (edit(WireFormat.load(name), size) for size in (length, 2 * length))
    work(once)  # what is made once for a format
    return any(_seconds(work, twice) < _GROWTH * _seconds(work, once) for _ in range(8))


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.process_time()
    work(*arguments)
    return time.process_time() - started


@_LENGTHS
@formats()
def test_feeding_by_small_chunks_is_linear(name: str, size: int) -> None:
    def feed(turn: str) -> None:
        parser = TurnParser(WireFormat.load(name), _TOOLS)
        for start in range(0, len(turn), 4):
            parser.feed(turn[start : start + 4])

    assert _is_linear(feed, name, size)


@_LENGTHS
@formats()
def test_reading_is_linear(name: str, size: int) -> None:
    def read(turn: str) -> None:
        for _ in range(5):
            assert read_turn(turn, WireFormat.load(name), _TOOLS).calls

    assert _is_linear(read, name, size)


@formats()
def test_repairing_is_linear(name: str) -> None:
    def repair(turn: str) -> None:
        toolguard.repair(turn[:-10], _TOOLS, name)
        toolguard.repair(turn.replace("a.py", 'a.py"', 1), _TOOLS, name)

    assert _is_linear(repair, name, 4_000)


@sizes(8_000, 16_000)
@formats(("hermes", "qwen3_xml", "glm_xml", "gemma4", "lfm2", "minicpm5"))
def test_accepting_and_watching_is_linear(
    name: str, size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    guard = Guard.compile(name, [EDIT], tokenizer)

    def accept(turn: str) -> None:
        ids = tokenizer(turn, add_special_tokens=False, verbose=False)["input_ids"]
        state = guard.start(2 * len(ids) + 100)
        for token in ids:
            assert state.position
            assert not (state.may_mention and state.opened_in_prose)
            assert state.retrace(token)

    assert _is_linear(accept, name, size)


@formats(("hermes", "k2_horizon", "minimax_m3", "lfm2"))
def test_compiling_is_linear(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    marks = count()

    def compiled(tools: int) -> float:
        offered = Toolset.of(listed(tools, f"_{next(marks)}"))
        return _seconds(Guard.compile, name, offered, tokenizer)

    compiled(28)
    assert any(compiled(56) < _GROWTH * compiled(28) for _ in range(3))
