from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import Qwen2ForCausalLM
from typer.testing import CliRunner

import toolguard
from toolguard import Report, Step, Turn
from toolguard.cli.main import app

RUNNER = CliRunner()


def test_demo_prints_one_json_object() -> None:
    names = ["healthy", "open_then_stop"]
    given = [part for name in names for part in ("--checkpoint", name)]
    out = RUNNER.invoke(app, ["demo", *given, "--prompts", "6", "--seed", "3", "--json"])
    assert out.exit_code == 0, out.output
    printed = json.loads(out.stdout)
    assert list(printed["results"]) == names
    for modes in printed["results"].values():
        assert list(modes) == ["unguarded", "enforce"]
        for result in modes.values():
            assert result["prompts"] == 6
            assert sum(result["states"].values()) == pytest.approx(1, abs=1e-3)
            for rate in ("schema_valid", "exact_match", "no_call_kept"):
                assert 0 <= result[rate] <= 1
            assert result["ms_per_token"] > 0
            assert result["forward_passes"] > 0
    transcript = printed["transcript"]
    assert transcript["checkpoint"] == "open_then_stop"
    assert transcript["unguarded"]["state"] != transcript["enforce"]["state"] == "healthy_call"
    assert transcript["enforce"]["report"]["interventions"]


def test_demo_prints_a_table_and_a_transcript() -> None:
    given = ["--checkpoint", "open_then_stop", "--prompts", "4"]
    out = RUNNER.invoke(app, ["demo", *given], env={"COLUMNS": "80"})
    assert out.exit_code == 0, out.output
    assert "…" not in out.stdout  # nothing is cut off
    for part in ("open_then_stop", "unguarded", "enforce", "collapsed", "interventions"):
        assert part in out.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nothing"], "no bundled checkpoint"),
        (["--prompts", "100000"], "held-out prompts"),
        (["--prompts", "0"], "prompts"),
    ],
)
def test_demo_refuses_what_it_cannot_do(arguments: list[str], message: str) -> None:
    out = RUNNER.invoke(app, ["demo", *arguments])
    assert out.exit_code == 2
    assert message in out.output


def test_held_out_cases_are_answered_by_their_own_tools() -> None:
    cases = toolguard.held_out()
    assert len(cases) >= 500
    assert len({case.id for case in cases}) == len(cases)
    for case in cases:
        for call in case.calls:
            assert case.toolset.errors(call["name"], call["arguments"]) == []


def test_formats_are_listed_and_recognised() -> None:
    listed = json.loads(RUNNER.invoke(app, ["formats", "--json"]).stdout)["formats"]
    assert tuple(listed) == toolguard.format_names(variants=True)
    for name, entry in listed.items():
        assert {name, "families", "tokens", "turn end", "arguments", "source"} <= set(
            entry["about"]
        )
        assert "get_weather" in entry["example"]
    model = str(toolguard.checkpoint("healthy"))
    shown = RUNNER.invoke(app, ["formats", "--model", model], env={"COLUMNS": "100"})
    assert shown.exit_code == 0
    assert "hermes" in shown.stdout
    assert "<tool_call>" in shown.stdout


def test_a_folder_without_a_model_is_an_error_with_the_reason() -> None:
    out = RUNNER.invoke(app, ["formats", "--model", "/nowhere"])
    assert out.exit_code == 2
    assert "/nowhere" in out.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere", "-o", "p.json"], "no model in '/nowhere'"),
        (["healthy", "-o", "/nowhere/p.json"], "cannot write the profile"),
        (["healthy", "-o", "p.json", "--prompts", "/nowhere.jsonl"], "case file"),
        (["healthy", "-o", "p.json", "--batch", "0"], "batch"),
        (["healthy"], "output"),
    ],
)
def test_profile_refuses_what_it_cannot_do(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolguard.cli.profile.load_model", lambda folder: pytest.fail("too late"))
    out = RUNNER.invoke(app, ["profile", *arguments], env={"COLUMNS": "200"})
    assert out.exit_code == 2
    assert message in out.output
    assert not list(tmp_path.iterdir())


def watched(*args: object, **options: object) -> Iterator[Turn]:
    """Turns with the steps of a healthy model's watch."""
    tool_call = {"<tool_call>": 0.998}
    for _ in range(40):
        steps = (
            Step(0, "text", "start", "<tool_call>", 1, tool_call, 0.0, 0.0, 1),
            Step(1, "call", "opened", "\n", 2, {"<|im_end|>": 0.002}, 0.002, 0.002, 1),
        )
        report = Report("observe", 2, 0, 2, 0.1, 0.0, (), steps)
        yield Turn("", "", "", (), True, "healthy_call", report=report)


@pytest.mark.parametrize("as_json", [False, True])
def test_profile_records_a_model(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: Qwen2ForCausalLM
) -> None:
    monkeypatch.setattr("toolguard.cli.profile.load_model", lambda folder: healthy)
    monkeypatch.setattr("toolguard.evaluation.answer.answer", watched)
    path = tmp_path / "profile.json"
    given = ["profile", "healthy", "-o", str(path), *(["--json"] if as_json else [])]
    out = RUNNER.invoke(app, given, env={"COLUMNS": "160"})
    assert out.exit_code == 0, out.output
    recorded = toolguard.Profile.load(path)
    assert recorded.turns == recorded.count("call", "opened") == 40
    if as_json:
        printed = json.loads(out.stdout)
        assert printed["turns"] == 40
        assert printed["masses"][0]["quantiles"]["0.5"] == pytest.approx(0.998)
        assert "sketch" not in printed["masses"][0]
    else:
        for part in ("<tool_call>", "call, opened", "0.9980", "hermes"):
            assert part in out.stdout
