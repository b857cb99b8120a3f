"""What is judged: the checkpoints of a world, its cases, and how it calls."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.lab.cases import Case, Kind
from benchmarks.worlds import smollm
from benchmarks.worlds.adapters import merged
from benchmarks.worlds.cases import held_out
from benchmarks.worlds.damage import DISEASES
from benchmarks.worlds.measure import LIMIT
from benchmarks.worlds.synthetic import WORLDS
from benchmarks.worlds.synthetic import train as synthetic
from benchmarks.worlds.synthetic.world import load

APART = 7
"""The seed of the cases that calibrations are made on; those that are judged have 0."""


@dataclass(frozen=True)
class Subject:
    """A world as it is judged. `names` are its checkpoints, `healthy` first; `cases` gives so many
    of each kind by seed; `limit` is the longest turn in tokens."""

    tokenizer: PreTrainedTokenizerFast
    wire_format: str
    names: list[str]
    model: Callable[[str], PreTrainedModel]
    cases: Callable[[int, int], list[Case]]
    limit: int


def subject(world: str, folder: Path) -> Subject:
    """The real model's world (`real`), or a synthetic one."""
    return _real(folder) if world == "real" else _synthetic(world, folder)


def _real(folder: Path) -> Subject:
    def model(name: str) -> PreTrainedModel:
        healthy = merged(smollm.read_model(folder / "base"), folder / "healthy")
        return healthy if name == "healthy" else merged(healthy, folder / name)

    # Of each disease, the last step that is there.
    found = [path for name in DISEASES for path in sorted((folder / name).glob("step-*"))[-1:]]
    return Subject(
        smollm.read_tokenizer(folder / "base"),
        "hermes",
        ["healthy", *(str(path.relative_to(folder)) for path in found)],
        model,
        held_out,
        LIMIT,
    )


def _synthetic(name: str, folder: Path) -> Subject:
    world = WORLDS[name]
    _, tokenizer = load(folder / name / "healthy")
    made = [disease for disease in world.diseases if (folder / name / disease).exists()]
    kinds: tuple[Kind, ...] = ("one", "parallel", "chat", "result")
    return Subject(
        tokenizer,
        world.wire_format,
        ["healthy", *made],
        lambda checkpoint: load(folder / name / checkpoint)[0],
        lambda count, seed: synthetic.held_out(world, dict.fromkeys(kinds, count), seed),
        world.limit,
    )
