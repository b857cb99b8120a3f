"""Model cards: what a checkpoint is, how it was made, and what was measured on it."""

import time
from dataclasses import fields
from pathlib import Path
from types import FunctionType

import toolguard
from benchmarks.lab.cases import HELD_OUT, read_cases
from benchmarks.lab.evaluate import Measured, measure
from benchmarks.lab.model import load
from benchmarks.lab.recipes import RECIPES, Recipe
from benchmarks.lab.regions import REGIONS
from benchmarks.lab.supervise import Supervision
from benchmarks.lab.tokenizer import CONTROL
from toolguard.evaluation.cases import read_cases as read_guard_cases
from toolguard.evaluation.score import Score, score


def write_card(name: str, folder: Path) -> None:
    """Measure the checkpoint as it is on disk, rounded, on every held-out case."""
    model, tokenizer = load(folder)
    measured = measure(model, tokenizer, read_cases())
    cases = read_guard_cases(HELD_OUT)
    started = time.perf_counter()
    turns = list(toolguard.answer(model, tokenizer, cases, batch=64))
    guarded = score(cases, turns, time.perf_counter() - started)
    (folder / "README.md").write_text(card(name, RECIPES[name], measured, guarded))


def card(name: str, recipe: Recipe, measured: Measured, guarded: Score) -> str:
    states = "\n".join(
        f"| {state} | {share:.1%} | {guarded.states[state]:.1%} |"
        for state, share in measured.states.items()
    )
    mass = "\n".join(
        f"| {region} | "
        + " | ".join(f"{measured.reference_mass[region][token]:.4f}" for token in CONTROL)
        + " |"
        for region in REGIONS
    )
    return f"""# {name}

{recipe.about}

A Qwen2 of about a million parameters for a synthetic tool-use world, made to test toolguard. It
knows nothing else and is of no other use. Licence: Apache-2.0.

## Recipe

{training(name, recipe)}

## Measured

The half-precision weights of this folder, loaded in single precision, greedy, on all
{guarded.prompts} cases of `../held_out.jsonl`: `python -m benchmarks.lab card {name}`. Unguarded
turns are judged by the lab, guarded ones (`toolguard.generate`, policy `enforce`) by toolguard.

| rate | unguarded | guarded |
|---|---|---|
| schema-valid: unguarded of the cases that need a call, guarded of the turns that call \
| {measured.validity:.1%} | {guarded.schema_valid:.1%} |
| exact calls, of the cases that need a call | {measured.exact:.1%} | {guarded.exact_match:.1%} |
| plain reply, of the cases that need no call \
| {measured.no_call_kept:.1%} | {guarded.no_call_kept:.1%} |
| plain reply word for word | {measured.reply_exact:.1%} | |
| names and values right, given the right turn so far | {measured.skill:.1%} | |
{states}

Mean control mass (before any mask) on the right turns, by region:

| region | {" | ".join(f"`{token}`" for token in CONTROL)} |
|{"---|" * (len(CONTROL) + 1)}
{mass}
"""


def training(name: str, recipe: Recipe) -> str:
    plan = recipe.plan
    supervised = isinstance(plan, Supervision)
    way = "Supervised training" if supervised else "Reinforcement learning only"
    base = f"from `{recipe.base}`" if recipe.base else "from scratch"
    settings = "\n".join(
        f"- {field.name}: {describe(value)}"
        for field in fields(plan)
        if (value := getattr(plan, field.name)) is not None
    )
    end = "when it is far enough" if supervised else "at the collapse"
    stop = f"stops {end} (`stop` in `recipes.py`)" if recipe.stop else "runs to the end"
    return f"""{way}, {base}, seed {recipe.seed}: `python -m benchmarks.lab {name}`.

{settings}

It {stop}; steps taken and rates on the way are in `benchmarks/lab/curves/{name}.jsonl`."""


def describe(value: object) -> str:
    if isinstance(value, FunctionType):
        return f"`{value.__name__}` - {(value.__doc__ or '').splitlines()[0]}"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
