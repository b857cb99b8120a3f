"""`toolguard serve`, up to the command that it runs."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

import toolguard
from toolguard import Profile, WireFormat
from toolguard.cli import serve
from toolguard.cli.main import app

RUNNER = CliRunner()


def dry(*arguments: str) -> tuple[dict[str, str], list[str]]:
    """The environment, and what follows `--model`."""
    out = RUNNER.invoke(app, ["serve", *arguments, "--dry-run"])
    assert out.exit_code == 0, out.output
    parts = shlex.split(out.stdout)
    python = next(place for place, part in enumerate(parts) if "=" not in part)
    settings = dict(part.split("=", 1) for part in parts[:python])
    assert parts[python + 1 : python + 5] == [
        "-P", "-m", "vllm.entrypoints.openai.api_server", "--model",
    ]  # fmt: skip
    return settings, parts[python + 5 :]


def refused(*arguments: str) -> str:
    out = RUNNER.invoke(app, ["serve", *arguments])
    assert out.exit_code == 2
    return " ".join(out.output.split())


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)


def test_a_bundled_checkpoint_is_served_by_name() -> None:
    settings, flags = dry("open_then_stop")
    assert settings["VLLM_PLUGINS"].split(",").count("toolguard") == 1
    assert "TOOLGUARD_MODE" not in settings
    assert flags == [
        str(toolguard.checkpoint("open_then_stop")),
        "--enable-auto-tool-choice", "--tool-call-parser", "toolguard",
        "--served-model-name", "open_then_stop", "--dtype", "float32",
        "--reasoning-parser", "toolguard",
    ]  # fmt: skip


def test_all_other_flags_pass_through() -> None:
    given = [
        "--port", "8001", "-tp", "2", "--max-model-len=512", "--dtype", "bfloat16",
        "--served-model-name", "mine", "--no-async-scheduling", "--override-generation-config",
        '{"temperature": 0}', "--reasoning_parser", "qwen3",
    ]  # fmt: skip
    _, flags = dry("open_then_stop", *given, "--format", "hermes")
    assert flags == [
        str(toolguard.checkpoint("open_then_stop")),
        "--enable-auto-tool-choice", "--tool-call-parser", "toolguard:hermes", *given,
    ]  # fmt: skip


def test_the_reasoning_parser_is_left_out_where_nothing_reasons() -> None:
    _, flags = dry("open_then_stop", "--format", "llama3_json")
    assert "--reasoning-parser" not in flags


def test_a_mode_and_resampling_are_set_up() -> None:
    settings, flags = dry("open_then_stop", "--mode", "engine", "--resample")
    assert settings["TOOLGUARD_MODE"] == "engine"
    assert {"toolguard", "toolguard_resample"} <= {*settings["VLLM_PLUGINS"].split(",")}
    assert flags[flags.index("--structured-outputs-config.backend") + 1] == "guidance"
    settings, flags = dry("open_then_stop", "--mode", "processor")
    assert settings["TOOLGUARD_MODE"] == "processor"
    assert "--structured-outputs-config.backend" not in flags


def test_a_profile_is_checked_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    Profile.of(WireFormat.load("hermes"), tokenizer).save(Path("right.json"))
    settings, _ = dry("open_then_stop", "--profile", "right.json")
    assert settings["TOOLGUARD_PROFILE"] == str(tmp_path / "right.json")
    Profile.of(WireFormat.load("kimi_k2"), tokenizer).save(Path("wrong.json"))
    assert "kimi_k2" in refused("open_then_stop", "--profile", "wrong.json", "--dry-run")
    assert "cannot read" in refused("open_then_stop", "--profile", "none.json", "--dry-run")


def test_plugins_that_are_installed_or_named_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(group: str) -> list[EntryPoint]:
        return [EntryPoint(f"{group}.other", "module:thing", group)]

    monkeypatch.setattr(serve, "entry_points", installed)
    names = serve.plugins({}, resample=False).split(",")
    assert "vllm.general_plugins.other" in names
    assert "vllm.platform_plugins.other" in names
    assert "vllm.endpoint_plugins.other" not in names  # they add routes, and were not asked for
    assert names[-1] == "toolguard"
    assert serve.plugins({"VLLM_PLUGINS": "mine"}, resample=True) == (
        "mine,toolguard,toolguard_resample"
    )
    assert serve.plugins({"VLLM_PLUGINS": "toolguard,mine"}, resample=False) == "toolguard,mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["open_then_stop", "--tool-call-parser", "hermes"], "--format"),
        (["open_then_stop", "--tool_call_parser=hermes"], "--format"),
        (["open_then_stop", "--model", "x"], "the model comes first"),
        (["open_then_stop", "--api-server-count", "2"], "vllm serve"),
        (["--port", "1", "open_then_stop"], "the model comes first"),
        (["open_then_stop", "--format", "klingon"], "klingon"),
        (
            ["x", "--mode", "engine", "--structured-outputs-config.backend=xgrammar"],
            "needs guidance",
        ),
        (["x", "--mode", "engine", "--structured-outputs-config", "{}"], "one by one"),
        (["x", "--mode", "shout"], "shout"),
    ],
)
def test_what_contradicts_is_refused(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments, "--dry-run")


def test_without_vllm_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert "pip install '.[vllm]' in toolguard's clone" in refused("open_then_stop")


def test_the_server_takes_this_process_over(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(serve, "find_spec", lambda name: object())
    monkeypatch.setattr(serve.os, "execve", lambda *given: became.append(given))
    monkeypatch.setenv("KEPT", "1")
    RUNNER.invoke(app, ["serve", "open_then_stop"])
    ((program, command, environment),) = became
    assert program == command[0]
    assert "--enable-auto-tool-choice" in command
    assert environment["KEPT"] == "1"
    assert "toolguard" in environment["VLLM_PLUGINS"]


def test_the_dashboard_ships_with_the_package() -> None:
    path = Path(toolguard.__file__).parent / "integrations/vllm/dashboard.json"
    assert json.loads(path.read_text())["title"] == "toolguard"
