"""The lab's command line: `python -m benchmarks.lab NAME`, or cases, figure, card NAME."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.lab.card import write_card
from benchmarks.lab.cases import HELD_OUT, check_disjoint, held_out_cases, write_cases
from benchmarks.lab.figure import draw_figure
from benchmarks.lab.model import CHECKPOINTS
from benchmarks.lab.recipes import RECIPES, Recipe
from benchmarks.lab.train import train

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command()
def cases(out: Path = HELD_OUT, count: int = 640, seed: int = 7) -> None:
    """Write the held-out cases."""
    drawn = held_out_cases(count, seed)
    check_disjoint(drawn, seed)
    write_cases(out, drawn)


@app.command()
def figure() -> None:
    """Draw the curves of all trainings."""
    draw_figure()


@app.command()
def card(name: Annotated[str, typer.Argument(help="A checkpoint.")]) -> None:
    """Measure a checkpoint on all held-out cases and write its model card."""
    write_card(name, CHECKPOINTS / name)


def command(name: str, recipe: Recipe) -> None:
    @app.command(name, help=f"Train: {recipe.about}")
    def run(out: Path = CHECKPOINTS / name) -> None:
        train(name, out)


for name, recipe in RECIPES.items():
    command(name, recipe)

if __name__ == "__main__":
    torch.set_num_threads(2)
    app()
