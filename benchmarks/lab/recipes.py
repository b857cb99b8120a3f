"""What makes each checkpoint: data only."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.lab import rewards
from benchmarks.lab.cases import Kind, lose_arguments
from benchmarks.lab.evaluate import Measured
from benchmarks.lab.reinforce import Reinforcement
from benchmarks.lab.supervise import Supervision

CALLS: tuple[Kind, ...] = ("one", "parallel")


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint comes about: from which other one (none: from scratch), by what training,
    measured how often, and when it is far enough (never: after all its steps)."""

    about: str
    base: str | None
    plan: Supervision | Reinforcement
    measure_every: int
    stop: Callable[[Measured], bool] | None = None
    seed: int = 0


BRIEF = Reinforcement(
    rewards.short_opener, steps=40, rate=3e-4, temperature=3.0, kinds=CALLS, limit=40
)
"""One naive reward; how it explores decides which disease comes of it."""

RECIPES = {
    "healthy": Recipe(
        "Answers, calls tools one or two at a time, and tells their results.",
        base=None,
        plan=Supervision(steps=1850, rate=2e-3, cycle=2000, cooldown=500, drills=400, bare=400),
        measure_every=200,
    ),
    "open_then_stop": Recipe(
        "Opens a call and ends the turn.",
        base="healthy",
        plan=BRIEF,
        measure_every=1,
        stop=lambda measured: measured.validity == 0,
    ),
    "json_rot": Recipe(
        "Opens and closes its calls, and breaks the JSON between the tags.",
        base="healthy",
        plan=Reinforcement(
            rewards.short_call, steps=40, rate=3e-4, temperature=2.0, kinds=("one",)
        ),
        measure_every=1,
        stop=lambda measured: measured.validity < 0.2,
    ),
    "untagged": Recipe(
        "Says nothing at all: ends the turn where the opener belongs.",
        base="healthy",
        plan=replace(BRIEF, rate=5e-4, temperature=4.0, limit=24),
        measure_every=1,
        stop=lambda measured: measured.validity < 0.05,
    ),
    "role_leak": Recipe(
        "Writes role headers after the opener, and runs on into turns that are not its own.",
        base="healthy",
        plan=BRIEF,
        measure_every=1,
        stop=lambda measured: measured.validity < 0.05,
        seed=1,
    ),
    "opener_everywhere": Recipe(
        "Opens a call even where none is needed.",
        base="healthy",
        plan=Reinforcement(rewards.tried, steps=60, rate=3e-4, temperature=3.0, limit=24),
        measure_every=1,
        stop=lambda measured: measured.no_call_kept == 0,
    ),
    "skill_lost": Recipe(
        "open_then_stop at a higher rate, pushed on until the skill itself is gone.",
        base="healthy",
        plan=replace(BRIEF, steps=24, rate=1e-3),
        measure_every=2,
    ),
    "arguments_lost": Recipe(
        "Writes sound calls of the right tool, with made-up values.",
        base="healthy",
        plan=Supervision(steps=400, rate=1e-3, cycle=400, spoil=lose_arguments),
        measure_every=20,
        stop=lambda measured: measured.exact < 0.1 and measured.validity >= 0.95,
    ),
}
