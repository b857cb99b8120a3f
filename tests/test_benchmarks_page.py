"""`python -m benchmarks`: what is kept of a run that ends well, fails or is cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks import page
from benchmarks.__main__ import run
from benchmarks.tables import quartiles, spread, table

ROW = {
    "batch": 1, "same_ids": 2, "turns": 2, "tokens": 1234, "passes_unguarded": 9,
    "passes_guarded": 5, "time_ratio": [0.5, 0.75, 1.0],
}  # fmt: skip
TITLES = {"forced_tokens": "Forced tokens"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "RESULTS.md")
    return tmp_path


def written() -> str:
    page.write_page(TITLES)
    return page.PAGE.read_text("utf-8")


def printing(row: object, then: str = "") -> list[str]:
    return ["-c", f"print({json.dumps(row)!r}, flush=True)\n{then}"]


def test_a_run_is_kept_and_shown() -> None:
    assert "Not run as a whole: `python -m benchmarks --part forced_tokens`." in written()
    assert run("forced_tokens", printing(ROW)) == ""
    assert not page.run_file("forced_tokens", running=True).exists()
    text = written()
    assert "| 1 | 2 | 2 | 1,234 | 9 | 5 | 0.75 (0.62-0.88) |" in text
    assert "failed" not in text


def test_a_failure_is_shown_and_takes_the_place_of_no_whole_run() -> None:
    fails = "raise ValueError('no such thing')"
    assert run("forced_tokens", printing(ROW, fails)) == "ValueError: no such thing"
    assert "The last run failed: ValueError: no such thing" in written()
    assert "| 1 | 2 | 2 | 1,234 |" in written()  # its rows, for there are no others
    assert run("forced_tokens", printing({**ROW, "tokens": 4321})) == ""
    assert run("forced_tokens", printing(ROW, fails))
    assert "The last run failed" in written()
    assert "4,321" in written()
    assert "1,234" not in written()


def test_what_a_killed_run_had_printed_is_there() -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run("forced_tokens", printing(ROW, killed)) == "exit code -9"
    assert "1,234" in written()


def test_an_exit_code_of_one_is_a_verdict() -> None:
    assert run("forced_tokens", printing(ROW, "raise SystemExit(1)")) == ""


def test_medians_are_shown_with_quartiles() -> None:
    assert quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert spread([1.0, 2.0, 3.0], ".1f") == "2.0 (1.5-2.5)"
    assert spread([33.3, 33.4]) == "33"
    assert spread([]) == ""
    assert table([{"a_b": 1}, {"a_b": 1000.0, "c": "x|y"}]).splitlines() == [
        "| a b | c |",
        "|---|---|",
        "| 1 |  |",
        "| 1,000.0 | x\\|y |",
    ]
