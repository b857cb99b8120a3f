"""How often `toolguard.spikes` says spike: on a healthy model, where it must not, and on others.

`python -m benchmarks.spikes [--alpha 0.01] [--prompts 520]` (about 3 minutes) records a profile of
`healthy` on 640 cases used nowhere else, and reads the unguarded turns of every checkpoint on the
held-out prompts, greedy. The rate promised is one per step of a healthy model.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoTokenizer

import toolguard
from benchmarks.drift import fresh_cases
from benchmarks.lab.cases import read_cases
from benchmarks.recovery import load, toolguard_cases

CALIBRATION, SEED = 640, 12


def main(
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.5)] = 0.01,
    prompts: Annotated[int, typer.Option(min=1, max=640)] = 520,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    profile = toolguard.Profile.of(toolguard.WireFormat.load("hermes"), tokenizer)
    calibrating = toolguard_cases(fresh_cases(CALIBRATION, SEED, read_cases()))
    cases = toolguard.held_out()[:prompts]

    def answered(name: str, chosen: list[toolguard.Case]) -> list[Any]:
        turns = toolguard.answer(
            load(name), tokenizer, chosen, batch=65, policy="observe", trace=True
        )
        return [turn.report.steps for turn in turns if turn.report is not None]

    for steps in answered("healthy", calibrating):
        profile.add(steps)
    rows = []
    names = [name for name in toolguard.checkpoint_names() if name != "skill_lost"]
    for name in track(names, "checkpoints", console=Console(stderr=True), transient=True):
        turns = answered(name, cases)
        spiked = [len(toolguard.spikes(profile, steps, alpha)) for steps in turns]
        rows.append(
            {
                "checkpoint": name,
                "steps": sum(map(len, turns)),
                "spikes": sum(spiked),
                "per step": round(sum(spiked) / sum(map(len, turns)), 5),
                "turns with one": round(sum(map(bool, spiked)) / len(turns), 4),
            }
        )
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(title=f"Spikes at a false-alarm rate of {alpha:g} a step")
    for heading in rows[0]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
