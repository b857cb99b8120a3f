"""What the guard gives back: exact calls and plain replies by checkpoint, policy and temperature.

`python -m benchmarks.recovery [--prompts 520] [--temperature 0] [--temperature 0.8]` has every
bundled checkpoint answer the first held-out prompts unguarded, under `enforce`, under `recover`,
under `recover` with a calibration (240 prompts used nowhere else), and under `recover` with
`healthy` as the reference. The last 120 prompts are left out by default: thresholds of `recover`
were chosen on them and on cases used nowhere else. `skill` is the share of turns whose names
and values come out right when the model is given the right turn so far and may not choose a control
token. It is no ceiling: where a value ends counts as a part of it there, and a reference decides
that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard
from benchmarks.drift import fresh_cases
from benchmarks.lab.batches import encode
from benchmarks.lab.cases import Case, read_cases, write_cases
from benchmarks.lab.evaluate import MeanMass, teacher_force
from benchmarks.lab.tokenizer import render

MODES = ("unguarded", "enforce", "recover", "calibration", "reference")
CALIBRATION, SEED = 240, 11
LOST = ("arguments_lost", "skill_lost")
"""Checkpoints that cannot call any more, guarded or not: nothing there to compare cures by."""


def main(
    prompts: Annotated[int, typer.Option(min=1, max=640, help="Held-out prompts.")] = 520,
    checkpoints: Annotated[
        list[str] | None, typer.Option("--checkpoint", help="Only these.")
    ] = None,
    modes: Annotated[list[str] | None, typer.Option("--mode", help="Only these.")] = None,
    temperatures: Annotated[list[float] | None, typer.Option("--temperature")] = None,
    batch: Annotated[int, typer.Option(min=1)] = 65,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line, as it is done.")] = False,
) -> None:
    cases = toolguard.held_out()[:prompts]
    names = checkpoints or list(toolguard.checkpoint_names())
    wanted = modes or MODES
    heats = temperatures or [0.0]
    rows: list[dict[str, Any]] = []
    fresh = toolguard_cases(fresh_cases(CALIBRATION, SEED, read_cases()))
    reference = load("healthy")
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))

    @cache
    def recorded(model: Any, heat: float) -> toolguard.Profile:
        return record(model, tokenizer, "hermes", fresh, batch=batch, temperature=heat, seed=seed)

    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(names) * len(heats) * len(wanted))
        for name in names:
            model = load(name)
            skill = skill_of(model, prompts)
            for heat in heats:
                for mode in wanted:
                    bars.update(bar, description=f"{name}, {mode}, T {heat}")
                    options: dict[str, Any] = {"policy": "observe" if mode == MODES[0] else mode}
                    if mode == "calibration":
                        profiles = recorded(model, heat), recorded(reference, heat)
                        options = {
                            "policy": "recover",
                            "calibration": toolguard.Calibration(*profiles),
                        }
                    if mode == "reference":
                        options = {"policy": "recover", "reference": reference}
                    started = time.perf_counter()
                    turns = list(
                        toolguard.answer(
                            model, tokenizer, cases, batch=batch, temperature=heat, seed=seed,
                            **options,
                        )
                    )  # fmt: skip
                    score = toolguard.score(cases, turns, time.perf_counter() - started)
                    reports = [turn.report for turn in turns if turn.report is not None]
                    rows.append(
                        {
                            "checkpoint": name,
                            "mode": mode,
                            "temperature": heat,
                            "exact": score.exact_match,
                            "no_call_kept": score.no_call_kept,
                            "schema_valid": score.schema_valid,
                            "skill": skill,
                            "turns_retried": sum(report.retries > 0 for report in reports),
                            "tokens_retried": sum(report.retried_tokens for report in reports),
                            "tokens": score.tokens,
                            "forward_passes": score.forward_passes,
                        }
                    )
                    bars.advance(bar)
                    if as_json:
                        print(json.dumps(rows[-1]), flush=True)
    if as_json:
        return
    table = Table(title=f"{prompts} held-out prompts")
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def record(
    model: Any, tokenizer: Any, wire_format: str, cases: Sequence[toolguard.Case], **options: Any
) -> toolguard.Profile:
    """A profile of a model's unguarded turns."""
    profile = toolguard.Profile.of(toolguard.WireFormat.load(wire_format), tokenizer)
    for turn in toolguard.answer(model, tokenizer, cases, policy="observe", trace=True, **options):
        assert turn.report is not None
        profile.add(turn.report.steps)
    return profile


def toolguard_cases(cases: Sequence[Case]) -> list[toolguard.Case]:
    """The lab's cases as toolguard reads them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cases.jsonl"
        write_cases(path, list(cases))
        return toolguard.read_cases(path)


def load(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(toolguard.checkpoint(name), dtype=torch.float32)


def skill_of(model: Any, prompts: int) -> float:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    cases = [case for case in read_cases()[:prompts] if case.calls]
    found: list[bool] = []
    for start in range(0, len(cases), 104):
        part = cases[start : start + 104]
        ids = [encode(tokenizer, render(tokenizer, case)) for case in part]
        found += teacher_force(model, tokenizer, part, ids, MeanMass())
    return round(sum(found) / len(found), 4)


if __name__ == "__main__":
    typer.run(main)
