"""The benchmark of recovered validity: its samples, and what a way comes to in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

pytest.importorskip("matplotlib")

import toolguard
from benchmarks.recovered_report import recovered_section
from benchmarks.recovered_validity import Subject, drawn


def test_samples_have_no_case_in_common() -> None:
    cases = toolguard.held_out()[:50]
    samples = drawn(cases, 10, 3)
    assert [len(sample) for sample in samples] == [10, 10, 10]
    assert len({case.id for sample in samples for case in sample}) == 30
    assert drawn(cases, 10, 3) == samples
    assert [len(sample) for sample in drawn(cases[:7], 10, 3)] == [2, 2, 2]
    with pytest.raises(typer.BadParameter, match="2 cases are too few for 3 repeats"):
        drawn(cases[:2], 10, 3)


def test_ways_of_one_checkpoint(tmp_path: Path) -> None:
    samples = drawn(toolguard.held_out()[:50], 2, 2)
    subject = Subject(str(toolguard.checkpoint("open_then_stop")), samples, None)
    rows = [
        {"checkpoint": "open_then_stop", "way": way, **subject.measure(way)}
        for way in ("json_repair", "unguarded", "enforce")
    ]
    for row in rows:
        assert row["prompts"] == [2, 2]
        assert all(spent > 0 for spent in row["ms_a_turn"])
        assert len(row["wrong"]) == len(row["tokens"]) == 2
        assert row["errors"] == ""
    repaired, unguarded, enforced = rows
    assert repaired["tokens"] == unguarded["tokens"]
    assert set(enforced["schema_valid"]) == {1.0}
    assert "| open_then_stop | enforce | 100 |" in recovered_section(rows, tmp_path)
    assert (tmp_path / "recovered_validity.png").is_file()


def test_what_raises_is_counted_and_shown() -> None:
    samples = drawn(toolguard.held_out()[:50], 1, 2)
    subject = Subject(str(toolguard.checkpoint("healthy")), samples, None)
    row = subject.measure("no such way")
    assert row["errors"] == "KeyError: 'no such way' (2)"
    assert row["collapsed"] == [1.0, 1.0]
