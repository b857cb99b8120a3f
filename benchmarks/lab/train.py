"""Run a recipe: seeded, resumable, measured on held-out cases as it goes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.lab.cases import read_cases
from benchmarks.lab.evaluate import Measured, measure
from benchmarks.lab.model import CHECKPOINTS, build_model, load, save
from benchmarks.lab.recipes import RECIPES
from benchmarks.lab.reinforce import Reinforced
from benchmarks.lab.supervise import Supervised, Supervision
from benchmarks.lab.tokenizer import build_tokenizer

HERE = Path(__file__).parent
CURVES = HERE / "curves"
STATE = HERE / ".state"
"""Training states, to resume from; not part of the repository."""
WATCHED = 104
"""Held-out cases that are measured during training; a model card measures all."""
SAVE_EVERY = 50


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
    state, curve = STATE / f"{name}.pt", CURVES / f"{name}.jsonl"
    done, rows = 0, list[dict[str, Any]]()
    if state.exists():
        saved = torch.load(state)
        model.load_state_dict(saved["model"])
        training.optimizer.load_state_dict(saved["optimizer"])
        done, rows = saved["done"], saved["rows"]

    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[status]}")) as progress:
        task = progress.add_task(name, total=recipe.plan.steps, completed=done, status="")
        logged: dict[str, float] = {}
        for step in range(done, recipe.plan.steps + 1):
            if step % recipe.measure_every == 0 or step == recipe.plan.steps:
                measured = measure(model, tokenizer, cases)
                rows.append({"step": step, **logged, **asdict(measured)})
                write_rows(curve, rows)
                progress.update(task, completed=step, status=status(measured))
                if recipe.stop and recipe.stop(measured):
                    break
            if step == recipe.plan.steps:
                break
            logged = training.step(step)
            progress.update(task, completed=step + 1)
            if (step + 1) % SAVE_EVERY == 0:
                STATE.mkdir(exist_ok=True)
                saved = {
                    "model": model.state_dict(),
                    "optimizer": training.optimizer.state_dict(),
                    "done": step + 1,
                    "rows": rows,
                }
                torch.save(saved, state)
    save(out, model, tokenizer)
    state.unlink(missing_ok=True)


def status(measured: Measured) -> str:
    return (
        f"valid {measured.validity:.2f}  exact {measured.exact:.2f}  "
        f"skill {measured.skill:.2f}  no call {measured.no_call_kept:.2f}"
    )


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
