"""A peer's fixtures of what models really write, and healthy turns of every format.

`python -m benchmarks.conformance` and `python -m benchmarks.harm` are the whole of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

pytest.importorskip("canitoolcall", reason="no canitoolcall: pip install '.[test]'")

from canitoolcall.checks import compare
from canitoolcall.chunking import ChunkStrategy
from canitoolcall.results import Status

import toolguard
from benchmarks import harm
from benchmarks.conformance import readings
from benchmarks.conformance.__main__ import harm_of_repair
from benchmarks.conformance.cases import Case, cases
from benchmarks.conformance.ids import at_hand, ids_of
from benchmarks.conformance.mask import admitted
from benchmarks.conformance.published import FAILS, best
from benchmarks.conformance.reasons import Entry, listed
from toolguard import FormatError, Toolset, WireFormat

# What holds today: numbers are raised when more is read, and never lowered.
LEAST_READ = 453  # of 469
LEAST_READ_WITH_OPTIONS = 457  # the goal is 455
WORDS = (
    "deepseek/sglang-v4-self-closing-invoke",
    "gpt-oss/llamacpp-commentary-content-only",
    "llama/l3-marker-in-arguments",
    "mistral/llamacpp-ministral3-marker-in-reasoning",
    "qwen3-xml/q38-marker-in-arguments",
)
"""What is hard to tell from damage, and valid."""


def reads(case: Case) -> bool:
    return case.verdict(readings.read(case))[0] in (Status.PASS, Status.SOFT_PASS)


@pytest.mark.parametrize("optional", [False, True])
def test_the_suites_fixtures_are_read(optional: bool) -> None:
    taken = [replace(case, optional=optional) for case in cases()]
    failed = Counter(case.fixture.family for case in taken if not reads(case))
    least = LEAST_READ_WITH_OPTIONS if optional else LEAST_READ
    assert len(cases()) - failed.total() >= least
    worse = {family for family in FAILS if failed[family] > best(family)}
    assert worse <= (set() if optional else {"qwen3-xml"})


@pytest.mark.skipif(not at_hand(), reason="no tokenizers: set TOOLGUARD_DATA")
@pytest.mark.parametrize("name", WORDS)
def test_what_looks_like_damage_and_is_valid_is_admitted(name: str) -> None:
    [case] = [case for case in cases() if case.id == name]
    ids = ids_of(case)
    assert admitted(case, ids)[0] is Status.PASS
    assert case.verdict(readings.by_ids(case, ids))[0] is Status.PASS
    assert readings.turn_of(case).state.startswith("healthy")


def test_what_comes_in_pieces_is_read_as_the_whole() -> None:
    for number, case in enumerate(cases()):
        cut = ChunkStrategy("rand", seed=number)
        [(_, seen)] = readings.streamed(case, [cut]).items()
        assert compare(readings.read(case).nonstream, seen) is Status.PASS, (case.id, seen)


def test_repair_harms_no_fixture() -> None:
    assert not [(case.id, kind) for case in cases() for kind in harm_of_repair(case)]


def test_the_list_in_the_documentation_is_of_fixtures_that_fail() -> None:
    known = {case.id: case for case in cases()}
    for entry in listed():
        assert entry.fixture in known
        assert entry.part != "read" or not reads(known[entry.fixture]), f"{entry} passes"
    assert any(Entry(name, "read") in listed() for name in known)


@pytest.mark.parametrize("name", toolguard.format_names())
def test_no_healthy_turn_is_harmed(name: str) -> None:
    wire_format = WireFormat.load(name)
    requests = harm.asked()[:: len(harm.asked()) // 5]
    for request in requests:
        for turn in harm.healthy(wire_format, request, harm.WAYS):
            assert not harm.reading(wire_format, turn), turn.text
            assert not harm.repairing(wire_format, turn), turn.text


def test_a_healthy_turn_is_admitted() -> None:
    [tokenizer, *_] = harm.bundled()
    for number, name in enumerate(toolguard.format_names()):
        wire_format, way = WireFormat.load(name), harm.WAYS[number % len(harm.WAYS)]
        for turn in harm.healthy(wire_format, harm.asked()[number], [way]):
            assert harm.masking(wire_format, turn, tokenizer) in ("", harm.REFUSED), turn.text


WEATHER = Toolset.of([{"name": "weather", "parameters": {"type": "object", "properties": {}}}])
CALLS = [{"name": "weather", "arguments": {}}]


@pytest.mark.parametrize("name", toolguard.format_names())
def test_reasoning_is_rendered_in_the_formats_tags(name: str) -> None:
    wire_format = WireFormat.load(name)
    if "reasoning" not in wire_format.rules:
        with pytest.raises(FormatError, match="no place for reasoning"):
            toolguard.render(wire_format, CALLS, reasoning="Hm.")
        return
    whole = toolguard.render(wire_format, CALLS, reasoning="Hm.")
    turn = toolguard.read_turn(whole, wire_format, WEATHER, opened=False)
    assert (turn.state, turn.reasoning, len(turn.calls)) == ("healthy_call", "Hm.", 1)
    if wire_format.rules["opened"] == wire_format.rules["start"]:
        with pytest.raises(FormatError, match="no prompt opens"):
            toolguard.render(wire_format, CALLS, reasoning="Hm.", opened=True)
        return
    rest = toolguard.render(wire_format, CALLS, reasoning="Hm.", opened=True)
    assert whole.endswith(rest)
    assert rest.startswith("Hm.")
    turn = toolguard.read_turn(rest, wire_format, WEATHER, opened=True)
    assert (turn.state, turn.reasoning, len(turn.calls)) == ("healthy_call", "Hm.", 1)
