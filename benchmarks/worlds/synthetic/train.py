"""Trainings of the synthetic worlds: seeded, resumable, looked at as they go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from transformers import PreTrainedTokenizerFast

import toolguard
from benchmarks.lab.batches import encode
from benchmarks.lab.cases import Case, Kind, draw
from benchmarks.lab.decode import decode
from benchmarks.lab.model import save
from benchmarks.lab.reinforce import Reinforced
from benchmarks.lab.supervise import Supervised
from benchmarks.lab.tokenizer import build_tokenizer, render
from benchmarks.lab.train import follow
from benchmarks.recovery import toolguard_cases
from benchmarks.worlds.synthetic.world import Model, World, build_model, load
from toolguard.evaluation.score import is_right

EVERY = 100
"""Steps of supervised training between two looks."""
GONE = 0.05
WATCHED: dict[Kind, int] = {"one": 16, "parallel": 8, "chat": 8}


@dataclass(frozen=True)
class Seen:
    """Unguarded and greedy: shares of the cases that need a call, and of those that need none."""

    exact: float
    kept: float


def held_out(world: World, each: dict[Kind, int], seed: int) -> list[Case]:
    """So many cases of each kind, of combinations that no training sees."""
    rng = Random(f"held out {seed}")
    return [
        draw(rng, "held_out", kind, f"{kind}-{number}", talk=world.talk)
        for kind, count in each.items()
        for number in range(count)
    ]


def look(
    world: World, model: Model, tokenizer: PreTrainedTokenizerFast, cases: Sequence[Case]
) -> Seen:
    """Have it answer cases."""
    wire_format = toolguard.WireFormat.load(world.wire_format)
    prompts = [render(tokenizer, case) for case in cases]
    written = decode(
        model, tokenizer, [encode(tokenizer, text) for text in prompts], limit=world.limit
    )
    exact: list[bool] = []
    kept: list[bool] = []
    for case, prompt, turn in zip(toolguard_cases(cases), prompts, written, strict=True):
        read = toolguard.read_turn(
            turn.text, wire_format, case.toolset, prompt=prompt, ended=turn.ended
        )
        (exact if case.calls else kept).append(is_right(case, read))
    return Seen(sum(exact) / len(exact), sum(kept) / len(kept))


def teach(name: str, world: World, folder: Path) -> None:
    """Train the healthy model from scratch, or go on."""
    tokenizer = build_tokenizer(world.seed, spelling=world.spelling, talk=world.talk)
    model = build_model(tokenizer, world.architecture)
    _follow(
        world,
        Supervised(world.lesson, model, tokenizer, world.seed, world.talk),
        None,
        EVERY,
        folder / name / "healthy",
    )


def damage(name: str, world: World, disease: str, folder: Path) -> None:
    """Break the healthy model by reinforcement learning alone, until exact calls are gone."""
    model, tokenizer = load(folder / name / "healthy")
    chosen = world.diseases[disease]
    _follow(
        world,
        Reinforced(chosen.plan, model, tokenizer, chosen.seed, world.talk),
        lambda seen: seen.exact < GONE,
        1,
        folder / name / disease,
    )


def _follow(
    world: World,
    training: Supervised | Reinforced,
    stop: Callable[[Seen], bool] | None,
    every: int,
    out: Path,
) -> None:
    cases = held_out(world, WATCHED, 1)
    follow(
        training,
        lambda: look(world, training.model, training.tokenizer, cases),
        stop,
        lambda seen: f"exact {seen.exact:.2f}  kept {seen.kept:.2f}",
        every,
        out.with_suffix(".pt"),
        out.with_suffix(".jsonl"),
    )
    save(out, training.model, training.tokenizer)
