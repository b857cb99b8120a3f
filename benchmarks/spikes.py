"""How often `toolguard.spikes` says spike: on healthy turns, where it must not, and on others.

`python -m benchmarks.spikes [--alpha 0.01 --alpha 0.05] [--temperature 0]` (about two minutes)
records a profile of `healthy` on cases used nowhere else, and reads unguarded turns on held-out
prompts: many of `healthy`, whose spikes are false alarms, and fewer of each damaged checkpoint.
The rate promised, `alpha`, is of healthy steps with a spike, over turns as they come; nothing is
promised of turns, whose rate stands beside it, nor of how many damaged ones are found. `told` is
the share of steps at places with enough recorded steps for that `alpha`: at the others only an
illegal token above half of the mass is a spike. A step counts once, however many of its control
tokens spike. One calibration, one seed.

Nearly all of the time goes into forward passes: 0.06 s a turn. Keeping and recording its steps
takes 0.2 ms.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoTokenizer

import toolguard
from benchmarks.drift import fresh_cases
from benchmarks.lab.cases import read_cases
from benchmarks.recovery import load, toolguard_cases

SEED, BATCH = 12, 65


def main(
    alphas: Annotated[list[float] | None, typer.Option("--alpha", min=1e-6, max=0.5)] = None,
    calibration: Annotated[int, typer.Option(min=1, help="Turns the profile is of.")] = 640,
    healthy: Annotated[int, typer.Option(min=1, max=640, help="Held-out turns of it.")] = 520,
    damaged: Annotated[int, typer.Option(min=1, max=640, help="Of each other checkpoint.")] = 130,
    temperature: float = 0.0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    profile = toolguard.Profile.of(toolguard.WireFormat.load("hermes"), tokenizer)
    calibrating = toolguard_cases(fresh_cases(calibration, SEED, read_cases()))
    held_out = toolguard.held_out()
    asked = dict.fromkeys(toolguard.checkpoint_names(), held_out[:damaged])
    asked["healthy"] = held_out[:healthy]
    rows: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=calibration + sum(map(len, asked.values())))

        def answered(model: Any, cases: list[toolguard.Case]) -> list[Any]:
            read = []
            for turn in toolguard.answer(
                model, tokenizer, cases, batch=BATCH, policy="observe", trace=True,
                temperature=temperature, seed=0,
            ):  # fmt: skip
                assert turn.report is not None
                read.append(turn.report.steps)
                bars.advance(bar)
            return read

        bars.update(bar, description="calibration")
        for steps in answered(load("healthy"), calibrating):
            profile.add(steps)
        for name, cases in asked.items():
            bars.update(bar, description=name)
            turns = answered(load(name), cases)
            rows += [
                {"checkpoint": name, "alpha": alpha, **rates(profile, turns, alpha)}
                for alpha in alphas or [0.01, 0.05]
            ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(title=f"Spikes by a profile of {calibration} healthy turns, T {temperature:g}")
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def rates(profile: toolguard.Profile, turns: list[Any], alpha: float) -> dict[str, Any]:
    steps = [step for turn in turns for step in turn]
    spiked = [
        {id(spike.step) for spike in toolguard.spikes(profile, turn, alpha)} for turn in turns
    ]
    needed = len(profile.controls) / alpha
    told = [profile.count(step.region, step.position) + 1 >= needed for step in steps]
    found = sum(map(len, spiked))
    return {
        "turns": len(turns),
        "steps": len(steps),
        "told": round(sum(told) / len(steps), 3),
        "spikes": found,
        "per_step": round(found / len(steps), 5),
        "turns_with_one": round(sum(map(bool, spiked)) / len(turns), 4),
    }


if __name__ == "__main__":
    typer.run(main)
