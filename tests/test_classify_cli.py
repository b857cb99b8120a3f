"""`toolguard classify`: states and faults of the turns in files of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolguard import Layout, classify_files
from toolguard.cli.main import app

RUNNER = CliRunner()
PING = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
STEPS = {100: [CALL, CALL, "Hello.", CALL], 20: [CALL, "", "<tool_call>\n", "<tool_call>"], 3: [""]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = [
        {"step": step, "checkpoint": f"run-{step}", "text": text, "tools": [PING]}
        for step, texts in STEPS.items()
        for text in texts
    ]
    lines = [*map(json.dumps, rows), '{"step": 3, "text": "hi"}', "no row", ""]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path / "rows.jsonl"


def classified(path: Path, *options: str) -> dict[str, Any]:
    given = ["classify", str(path), "--format", "hermes", "--json", *options]
    out = RUNNER.invoke(app, given)
    assert out.exit_code == 0, out.output
    printed: dict[str, Any] = json.loads(out.stdout)
    return printed


def test_turns_are_counted_by_state_and_fault(path: Path) -> None:
    found = classified(path, "--workers", "1")
    assert (found["rows"], found["errors"]) == (11, 2)
    (group,) = found["groups"]
    assert group["by"] is None
    assert group["turns"] == sum(group["states"].values()) == 9
    assert group["states"] == {
        "healthy_call": 4,
        "healthy_response": 1,
        "polluted": 0,
        "collapsed": 4,
    }
    assert group["faults"] == {"empty_turn": 2, "open_then_stop": 2}


def test_numbers_are_sorted_and_names_stand_as_they_appear(path: Path) -> None:
    by_step = classified(path, "--by", "step", "--workers", "2")
    assert [group["by"] for group in by_step["groups"]] == [3, 20, 100]
    assert [group["turns"] for group in by_step["groups"]] == [1, 4, 4]
    assert by_step["groups"][1]["faults"] == {"open_then_stop": 2, "empty_turn": 1}
    by_name = classified(path, "--by", "checkpoint", "--workers", "1")
    assert [group["by"] for group in by_name["groups"]] == ["run-100", "run-20", "run-3"]
    assert by_name["groups"][1] == {**by_step["groups"][1], "by": "run-20"}


def test_rows_without_a_turn_or_a_group_are_reported(path: Path) -> None:
    given = ["classify", str(path), "--by", "checkpoint", "--json", "--workers", "1"]
    said = RUNNER.invoke(app, given).stderr.splitlines()
    assert [line.split(": ")[0] for line in said] == [f"{path}:10", f"{path}:11"]
    assert "no 'checkpoint' to group by" in said[0]


def test_tables_and_bars_are_printed(path: Path) -> None:
    given = ["classify", str(path), "--by", "step", "--format", "hermes", "--workers", "1"]
    out = RUNNER.invoke(app, given, env={"COLUMNS": "90"})
    assert out.exit_code == 0, out.output
    lines = [line.split() for line in out.stdout.splitlines()]
    assert ["100", "4", "75.0%", "25.0%", "0.0%", "0.0%"] in lines
    assert ["100", "█" * 30 + "▓" * 10] in lines
    assert ["3", "░" * 40] in lines
    assert ["open_then_stop", "20", "2", "50.0%", "█" * 10] in lines
    assert "11 rows, 2 without a turn or tools" in out.stdout


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_chart_is_drawn(kind: str, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install '.[chart]'")
    chart = tmp_path / f"chart.{kind}"
    classified(path, "--by", "step", "--chart", str(chart), "--workers", "1")
    start = chart.read_bytes()[:1000]
    assert start.startswith(b"\x89PNG") if kind == "png" else b"<svg" in start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.jsonl", "--chart", "chart.txt"], "cannot draw chart.txt"),
        (["/nowhere.jsonl"], "cannot read /nowhere.jsonl"),
        (["rows.jsonl", "--format", "morse"], "unknown wire format 'morse'"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], message: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    out = RUNNER.invoke(app, ["classify", *arguments, "--workers", "1"])
    assert out.exit_code == 2
    assert message in out.stderr


def test_parquet_is_classified_as_lines_are(path: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="no pyarrow: pip install '.[parquet]'")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [json.loads(line) for line in path.read_text().splitlines()[:10]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    layout = Layout(format="hermes")
    both = classify_files([tmp_path / "rows.parquet", path], layout, by="step")
    alone = classify_files([path], layout, by="step")
    assert both.rows == alone.rows + 10
    for step, group in alone.groups.items():
        assert both.groups[step].turns == 2 * group.turns
        assert both.groups[step].faults == group.faults + group.faults
