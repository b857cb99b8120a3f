"""Run a recipe: seeded, resumable, measured on held-out cases as it goes."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.lab.cases import read_cases
from benchmarks.lab.evaluate import Measured, measure
from benchmarks.lab.model import CHECKPOINTS, build_model, load, save
from benchmarks.lab.recipes import RECIPES
from benchmarks.lab.reinforce import Reinforced
from benchmarks.lab.supervise import Supervised, Supervision
from benchmarks.lab.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HERE = Path(__file__).parent
CURVES = HERE / "curves"
STATE = HERE / ".state"
"""Training states, to resume from; not part of the repository."""
WATCHED = 104
"""Held-out cases that are measured during training; a model card measures all."""
SAVE_EVERY = 50

M = TypeVar("M", bound="DataclassInstance")


def train(name: str, out: Path) -> None:
    """Train a checkpoint, log its curve, and write it to `out`."""
    recipe = RECIPES[name]
    if recipe.base is None:
        tokenizer = build_tokenizer(recipe.seed)
        model = build_model(tokenizer, recipe.seed)
    else:
        model, tokenizer = load(CHECKPOINTS / recipe.base)
    training: Supervised | Reinforced
    if isinstance(recipe.plan, Supervision):
        training = Supervised(recipe.plan, model, tokenizer, recipe.seed)
    else:
        training = Reinforced(recipe.plan, model, tokenizer, recipe.seed)
    cases = read_cases()[:WATCHED]
    follow(
        training,
        lambda: measure(model, tokenizer, cases),
        recipe.stop,
        status,
        recipe.measure_every,
        STATE / f"{name}.pt",
        CURVES / f"{name}.jsonl",
    )
    save(out, model, tokenizer)


def follow(
    training: Supervised | Reinforced,
    look: Callable[[], M],
    stop: Callable[[M], bool] | None,
    status: Callable[[M], str],
    every: int,
    state: Path,
    curve: Path,
) -> None:
    """Run a training, or go on with it; `look` measures it, until `stop` says that it is enough."""
    model, steps = training.model, training.plan.steps
    name = state.stem
    done, rows = 0, list[dict[str, Any]]()
    if state.exists():
        saved = torch.load(state)
        model.load_state_dict(saved["model"])
        training.optimizer.load_state_dict(saved["optimizer"])
        done, rows = saved["done"], saved["rows"]

    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[status]}")) as progress:
        task = progress.add_task(name, total=steps, completed=done, status="")
        logged: dict[str, float] = {}
        for step in range(done, steps + 1):
            if step % every == 0 or step == steps:
                measured = look()
                rows.append({"step": step, **logged, **asdict(measured)})
                write_rows(curve, rows)
                progress.update(task, completed=step, status=status(measured))
                if stop and stop(measured):
                    break
            if step == steps:
                break
            logged = training.step(step)
            progress.update(task, completed=step + 1)
            if (step + 1) % SAVE_EVERY == 0:
                state.parent.mkdir(parents=True, exist_ok=True)
                saved = {
                    "model": model.state_dict(),
                    "optimizer": training.optimizer.state_dict(),
                    "done": step + 1,
                    "rows": rows,
                }
                torch.save(saved, state)
    state.unlink(missing_ok=True)


def status(measured: Measured) -> str:
    return (
        f"valid {measured.validity:.2f}  exact {measured.exact:.2f}  "
        f"skill {measured.skill:.2f}  no call {measured.no_call_kept:.2f}"
    )


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
