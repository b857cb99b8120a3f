"""What `toolguard diagnose` says of the lab's checkpoints, and how long that takes.

`python -m benchmarks.verdicts [--limit 200] [--no-reference]` runs the command on every bundled
checkpoint and on a model with random weights, in fresh folders, and holds the verdicts against what
each checkpoint was made to be. `role_leak` is damaged in its format, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard

FORMAT = "format damaged, skill intact"
EXPECTED = {
    "healthy": "healthy",
    "arguments_lost": "skill damaged",
    "skill_lost": "both",
    "random": "skill damaged",
}
COMMAND = [sys.executable, "-c", "from toolguard.cli.main import app; app()", "diagnose"]


def main(
    limit: Annotated[int, typer.Option(min=1, help="Cases for each checkpoint.")] = 200,
    reference: Annotated[bool, typer.Option(help="With `healthy` as the reference.")] = False,
    checkpoints: Annotated[
        list[str] | None, typer.Option("--checkpoint", help="Only these; or `random`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line.")] = False,
) -> None:
    table = Table(title=f"{limit} held-out cases, {'with' if reference else 'without'} a reference")
    for heading in ("checkpoint", "verdict", "expected", "led", "guarded", "seconds"):
        table.add_column(heading)
    with TemporaryDirectory() as folder:
        for name in checkpoints or (*toolguard.checkpoint_names(), "random"):
            row = _row(name, Path(folder), limit, reference)
            if as_json:
                print(json.dumps(row), flush=True)
            table.add_row(*map(str, row.values()))
    if not as_json:
        Console().print(table)


def _row(name: str, folder: Path, limit: int, reference: bool) -> dict[str, Any]:
    model = str(_random(folder / "model")) if name == "random" else name
    # the random model is of the same world: its cases are those of the checkpoints
    cases = Path(str(toolguard.checkpoint("healthy"))).parent / "held_out.jsonl"
    given = [model, "--cases", str(cases), "--limit", str(limit), "--out", str(folder / name)]
    if reference:
        given += ["--reference", "healthy"]
    started = time.perf_counter()
    done = subprocess.run([*COMMAND, *given, "--json"], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    enforced = next(row for row in found["answers"] if row["name"] == "enforce")
    return {
        "checkpoint": name,
        "verdict": found["verdict"]["name"],
        "expected": EXPECTED.get(name, FORMAT),
        "led": found["skill"]["calls"]["share"],
        "guarded": enforced["exact_match"]["share"],
        "seconds": round(seconds),
    }


def _random(folder: Path) -> Path:
    path = toolguard.checkpoint("healthy")
    torch.manual_seed(0)
    config = AutoModelForCausalLM.from_pretrained(path).config
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    typer.run(main)
