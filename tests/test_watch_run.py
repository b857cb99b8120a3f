"""`toolguard watch`: a training run by step, resumed and polled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2ForCausalLM
from typer.testing import CliRunner

import toolguard
from toolguard.cli.main import app
from toolguard.evaluation.figures import drawn
from toolguard.evaluation.load import Source, load_model
from toolguard.evaluation.masses import ControlMass

RUNNER = CliRunner()
GIVEN = ("--limit", "16", "--seed", "2", "--run-length", "1000")
PING = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
ROLLOUTS = {9: [CALL, CALL, "Hello.", CALL], 10: [CALL, "", "<tool_call>\n"], 100: [""]}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cases") / "cases.jsonl"
    lines = (toolguard.checkpoint("healthy").parent / "held_out.jsonl").read_text().splitlines()
    path.write_text("\n".join(lines[:32]))
    return path


def run_of(folder: Path, **checkpoints: str) -> Path:
    """A run whose checkpoints are bundled ones: s5="healthy" is step 5."""
    folder.mkdir(exist_ok=True)
    for step, name in checkpoints.items():
        (folder / f"checkpoint-{step[1:]}").symlink_to(toolguard.checkpoint(name))
    (folder / "logs").mkdir(exist_ok=True)
    return folder


def watched(run: Path | str, *options: object, cases: Path | None = None) -> dict[str, Any]:
    chosen = [] if cases is None else ["--cases", str(cases), *GIVEN]
    given = ["watch", str(run), *chosen, *map(str, options), "--json"]
    out = RUNNER.invoke(app, given)
    assert out.exit_code == 0, out.output
    printed: dict[str, Any] = json.loads(out.stdout)
    return printed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cases: Path) -> Path:
    """A run that was watched."""
    run = run_of(tmp_path_factory.mktemp("run"), s5="healthy", s10="healthy", s100="open_then_stop")
    watched(run, cases=cases)
    return run


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be loaded."""
    monkeypatch.setattr("toolguard.cli.watch.load_model", lambda folder: pytest.fail("once more"))


def test_each_step_has_the_figures_of_its_checkpoint(
    run: Path,
    cases: Path,
    idle: None,
    damaged: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    found = watched(run, cases=cases)
    first, second, last = found["steps"]
    assert [row["step"] for row in found["steps"]] == [5, 10, 100]
    every = toolguard.read_cases(cases)
    asked = drawn(every, 16, 2)
    turns = list(toolguard.answer(damaged, tokenizer, asked, policy="observe", trace=True))
    score = toolguard.score(asked, turns, 1.0)
    assert last["turns"] == sum(last["states"].values()) == 16
    for state, count in last["states"].items():
        assert count / 16 == pytest.approx(score.states[state], abs=1e-4)
    for name in ("schema_valid", "exact_match", "no_call_kept"):
        assert last[name] == getattr(score, name)
    assert last["faults"]["open_then_stop"] >= 8
    mass = ControlMass()
    for turn in turns:
        assert turn.report is not None
        mass.add(turn.report.steps)
    assert last["control_mass"] == mass.to_json()
    assert {**first, "step": 0, "drift_statistic": 0} == {**second, "step": 0, "drift_statistic": 0}
    assert found["alarm_step"] == 100
    assert not first["alarms"]
    assert last["drift_statistic"] >= 1000 > second["drift_statistic"]
    assert found["profile_recorded"] == f"{len(every)} turns of checkpoint-5"
    assert toolguard.Profile.load(Path(found["profile"])).turns == len(every) == 32


def test_a_run_that_goes_on_costs_only_its_new_steps(
    run: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = run_of(tmp_path / "run", s5="healthy")
    watched(growing, cases=cases)
    # kill -9 in the middle of a row, and before the first row that follows
    journal = growing / "toolguard-watch.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"step": 10, "turns"')
    run_of(growing, s10="healthy", s100="open_then_stop")
    loaded = []

    def load(source: Source) -> PreTrainedModel:
        loaded.append(Path(source.path).name)
        return load_model(source)

    monkeypatch.setattr("toolguard.cli.watch.load_model", load)
    found = watched(growing, cases=cases)
    assert loaded == ["checkpoint-10", "checkpoint-100"]
    whole = watched(run, cases=cases)
    assert found["steps"] == whole["steps"]
    # checkpoints that were taken away are still known
    for folder in growing.glob("checkpoint-*"):
        folder.unlink()
    assert watched(growing, cases=cases) == found
    assert len(journal.read_text().splitlines()) == 2 + 3


def test_another_journal_and_a_given_profile(run: Path, cases: Path, tmp_path: Path) -> None:
    profile = run / "toolguard-watch.profile.json"
    found = watched(run, "--profile", profile, "--out", tmp_path / "own.jsonl", cases=cases)
    assert found["profile_recorded"] is None
    assert found["steps"] == watched(run, cases=cases)["steps"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "3"], "another run (seed 2, not 3)"),
        (["--max-new-tokens", "20"], "another run (max_new_tokens 160, not 20)"),
        (["--out", "/nowhere/journal"], "'/nowhere/journal'"),
        (["--chart", "chart.txt"], "cannot draw chart.txt"),
        (["--profile", "/nowhere.json"], "/nowhere.json"),
        (["--cases", "/nowhere.jsonl"], "cannot read the case file"),
    ],
)
def test_what_does_not_fit_is_said(
    change: list[str], message: str, run: Path, cases: Path, idle: None
) -> None:
    out = RUNNER.invoke(app, ["watch", str(run), "--cases", str(cases), *GIVEN, *change])
    assert out.exit_code == 2
    assert message in out.stderr
    assert len(out.stderr.splitlines()) == 1


def test_a_folder_without_anything_to_watch_is_said(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "nothing to watch"), (tmp_path / "no", "no such file")):
        out = RUNNER.invoke(app, ["watch", str(path)])
        assert out.exit_code == 2
        assert message in out.stderr


def test_a_broken_checkpoint_is_said_and_nothing_before_it_lost(
    run: Path, cases: Path, tmp_path: Path
) -> None:
    profile = str(run / "toolguard-watch.profile.json")
    run = run_of(tmp_path / "run", s5="healthy")
    broken = run / "checkpoint-7"
    broken.mkdir()
    for file in toolguard.checkpoint("healthy").iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 1000 if "safe" in file.name else None])
    given = ["watch", str(run), "--cases", str(cases), *GIVEN, "--profile", profile]
    out = RUNNER.invoke(app, given)
    assert out.exit_code == 2
    assert f"cannot load the model of {broken}" in out.stderr.splitlines()[-1]
    assert len((run / "toolguard-watch.jsonl").read_text().splitlines()) == 1 + 1


def test_a_step_that_comes_too_late_or_changes_is_said(
    run: Path, cases: Path, tmp_path: Path
) -> None:
    profile = str(run / "toolguard-watch.profile.json")
    run = run_of(tmp_path / "run", s5="healthy")
    watched(run, "--profile", profile, cases=cases)
    given = ["watch", str(run), "--cases", str(cases), *GIVEN, "--profile", profile]
    run_of(run, s4="healthy")
    out = RUNNER.invoke(app, given)
    assert out.exit_code == 2
    assert "step 4 comes before step 5" in out.stderr
    for step in (4, 5):
        (run / f"checkpoint-{step}").unlink()
    run_of(run, s5="untagged")
    out = RUNNER.invoke(app, given)
    assert out.exit_code == 2
    assert "checkpoint-5 has changed" in out.stderr


def test_a_profile_of_another_tokenizer_is_refused(
    run: Path, cases: Path, tmp_path: Path, idle: None
) -> None:
    profile = toolguard.Profile("hermes", ("<tool_call>",), "another")
    profile.save(tmp_path / "profile.json")
    given = ["--profile", str(tmp_path / "profile.json"), "--out", str(tmp_path / "own.jsonl")]
    out = RUNNER.invoke(app, ["watch", str(run), "--cases", str(cases), *GIVEN, *given])
    assert out.exit_code == 2
    assert "another vocabulary" in out.stderr


def test_tables_and_a_chart_mark_the_alarm(
    run: Path, cases: Path, tmp_path: Path, idle: None
) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install '.[chart]'")
    chart = tmp_path / "steps.svg"
    given = ["watch", str(run), "--cases", str(cases), *GIVEN, "--chart", str(chart)]
    out = RUNNER.invoke(app, given, env={"COLUMNS": "80"})
    assert out.exit_code == 0, out.output
    assert "…" not in out.stdout
    (marked,) = [
        line for line in map(str.rstrip, out.stdout.splitlines()) if line.endswith("alarm")
    ]
    assert marked.split()[0] == "100"
    for part in ("step 100: turn", "the format is drifting", "open_then_stop", "32 turns of"):
        assert part in out.stdout
    assert "<svg" in chart.read_text()[:1000]


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for step, texts in ROLLOUTS.items():
        rows = [{"step": step, "text": text, "tools": [PING]} for text in texts]
        lines = [*map(json.dumps, rows), "no row"]
        (folder / f"rollouts-v2.{step}.jsonl").write_text("\n".join(lines))
    return folder


def test_rollouts_have_states_and_faults_by_step(rollouts: Path) -> None:
    found = watched(rollouts, "--format", "hermes", "--workers", "1")
    assert [row["step"] for row in found["steps"]] == [9, 10, 100]
    assert [row["turns"] for row in found["steps"]] == [4, 3, 1]
    assert found["steps"][0]["states"]["healthy_call"] == 3
    assert found["steps"][1]["faults"] == {"empty_turn": 1, "open_then_stop": 1}
    assert all(row["drift_statistic"] is row["exact_match"] is None for row in found["steps"])
    assert found["alarm_step"] is None
    assert "no logits" in found["no_drift"]
    assert found["errors"] == 3
    named = sorted(map(str, rollouts.glob("rollouts-*")))
    given = ["watch", *named, "--by", "step", "--format", "hermes", "--json", "--workers", "1"]
    out = RUNNER.invoke(app, [*given, "--out", str(rollouts.parent / "by.jsonl")])
    assert json.loads(out.stdout)["steps"] == found["steps"]


def test_rollouts_are_read_again_only_where_they_changed(
    rollouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--format", "hermes", "--workers", "1")
    before = watched(rollouts, *options)
    read: list[str] = []

    def classify(files: list[Path], *given: Any, **more: Any) -> toolguard.Classes:
        read.append(files[0].name)
        return toolguard.classify_files(files, *given, **more)

    monkeypatch.setattr("toolguard.evaluation.watch.classify_files", classify)
    assert watched(rollouts, *options) == before
    assert read == []
    with (rollouts / "rollouts-v2.100.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"text": CALL, "tools": [PING]}) + "\n")
    after = watched(rollouts, *options)
    assert read == ["rollouts-v2.100.jsonl"]
    assert after["steps"][:2] == before["steps"][:2]
    assert after["steps"][2]["states"]["healthy_call"] == 1


def test_rollouts_are_drawn_and_printed(rollouts: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install '.[chart]'")
    given = ["watch", str(rollouts), "--format", "hermes", "--workers", "1"]
    out = RUNNER.invoke(app, [*given, "--chart", str(tmp_path / "chart.png")])
    assert out.exit_code == 0, out.output
    assert "No drift detector: rollouts have no logits" in out.stdout
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_rollouts_without_a_step_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    out = RUNNER.invoke(app, ["watch", str(tmp_path)])
    assert out.exit_code == 2
    assert "cannot tell the step" in out.stderr
