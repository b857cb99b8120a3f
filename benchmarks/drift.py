"""Does the drift alarm come before the collapse? The lab's trainings, watched turn by turn.

`python -m benchmarks.drift` calibrates a profile on `healthy` and the bundled held-out prompts,
runs each damaging recipe again, and lets the model of each training step answer held-out prompts
that are used nowhere else. The detector sees that stream of turns, and nothing else. False alarms
are counted on streams of `healthy`'s own turns, each against a calibration drawn anew.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import matplotlib
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from benchmarks.lab.batches import encode
from benchmarks.lab.cases import Case, held_out_cases, read_cases
from benchmarks.lab.decode import decode
from benchmarks.lab.judge import judge
from benchmarks.lab.model import CHECKPOINTS, load
from benchmarks.lab.recipes import RECIPES
from benchmarks.lab.reinforce import Reinforced, Reinforcement
from benchmarks.lab.tokenizer import render
from benchmarks.lab.train import CURVES
from benchmarks.lab.watched import FORMAT, watched
from toolguard import Alarm, Drift, Profile, Step

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DAMAGING = tuple(name for name, recipe in RECIPES.items() if isinstance(recipe.plan, Reinforcement))
FIGURE = CURVES / "drift.png"
RUN_LENGTHS = (100, 10_000)
"""The detector's promise on healthy turns; the last is its default, which the alarms are from."""
BATCH = 60


@dataclass(frozen=True)
class Answered:
    """A turn as the detector sees it, and whether it is sound: a valid call where one is needed,
    a plain reply elsewhere."""

    steps: list[Step]
    sound: bool


def main(
    recipes: Annotated[list[str] | None, typer.Option("--recipe", help="Only these.")] = None,
    temperatures: Annotated[
        list[float] | None, typer.Option("--temperature", help="0 and 0.8 unless given.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Turns per training step.")] = 60,
    healthy_turns: Annotated[int, typer.Option(min=1, help="Besides the calibration.")] = 900,
    streams: Annotated[int, typer.Option(min=1, help="Healthy streams, of that length.")] = 60,
    seed: int = 11,
    figure: Path = FIGURE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, else a table.")] = False,
) -> None:
    """Measure detection delay and false alarms on the lab's trainings."""
    names = recipes or list(DAMAGING)
    if unknown := set(names) - set(DAMAGING):
        raise typer.BadParameter(f"no such recipe: {', '.join(unknown)}; {', '.join(DAMAGING)}")
    heats = temperatures or [0.0, 0.8]
    lengths = {name: last_step(name) for name in names}
    calibration = read_cases()
    fresh = fresh_cases(healthy_turns + prompts * (1 + max(lengths.values())), seed, calibration)
    stream, asked = fresh[:healthy_turns], fresh[healthy_turns:]
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    output: dict[str, Any] = {"false_alarms": {}, "trajectories": {}}
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        model, tokenizer = load(CHECKPOINTS / "healthy")
        profiles: dict[float, Profile] = {}
        for heat in heats:
            task = progress.add_task(f"healthy, T {heat:g}", total=len(calibration + stream))
            turns: list[Answered] = []
            for first in range(0, len(calibration + stream), BATCH):
                part = (calibration + stream)[first : first + BATCH]
                turns += answered(model, tokenizer, part, heat, seed + first)
                progress.advance(task, len(part))
            profiles[heat] = recorded(turns[: len(calibration)], tokenizer)
            output["false_alarms"][f"T {heat:g}"] = false_alarms(
                turns, len(calibration), streams, seed, tokenizer, progress
            )
        for name in names:
            task = progress.add_task(name, total=lengths[name])
            rows = trajectory(name, lengths[name], heats, asked, prompts, progress, task)
            output["trajectories"][name] = {
                f"T {heat:g}": detected(rows[heat], profiles[heat], prompts) for heat in heats
            }
            console.print(name, summary(output["trajectories"][name]))
    draw(output["trajectories"], figure)
    if as_json:
        print(json.dumps(output))
    else:
        Console().print(table(output["trajectories"]))
        Console().print_json(data=output["false_alarms"])


def last_step(name: str) -> int:
    """Where the training of a bundled checkpoint ended."""
    return int(json.loads((CURVES / f"{name}.jsonl").read_text().splitlines()[-1])["step"])


def fresh_cases(count: int, seed: int, used: Sequence[Case]) -> list[Case]:
    """Held-out cases, none of which is among `used`."""
    seen = {json.dumps(case.messages) for case in used}
    drawn = held_out_cases(count + count // 8, seed)
    unused = [case for case in drawn if json.dumps(case.messages) not in seen]
    assert len(unused) >= count
    return unused[:count]


def answered(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    cases: Sequence[Case],
    temperature: float,
    seed: int,
) -> list[Answered]:
    """What the model makes of the cases, unguarded, in their order."""
    ordered = sorted(range(len(cases)), key=lambda i: len(render(tokenizer, cases[i])))
    part = [cases[i] for i in ordered]
    turns = decode(
        model,
        tokenizer,
        [encode(tokenizer, render(tokenizer, case)) for case in part],
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    made = {}
    steps = watched(model, tokenizer, part, turns)
    for i, case, turn, read in zip(ordered, part, turns, steps, strict=True):
        wanted = "healthy_call" if case.calls else "healthy_response"
        made[i] = Answered(read, judge(turn.text, turn.ended, case).state == wanted)
    return [made[i] for i in range(len(cases))]


def recorded(turns: Sequence[Answered], tokenizer: PreTrainedTokenizerFast) -> Profile:
    profile = Profile.of(FORMAT, tokenizer)
    for turn in turns:
        profile.add(turn.steps)
    return profile


def false_alarms(
    turns: Sequence[Answered],
    size: int,
    streams: int,
    seed: int,
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress,
) -> dict[str, Any]:
    """Alarms on healthy streams: turns are dealt anew into a calibration and a stream each time."""
    task = progress.add_task("healthy streams", total=streams)
    rng = Random(seed)
    alarms, default, seen = dict.fromkeys(RUN_LENGTHS, 0), 0, 0
    for _ in range(streams):
        dealt = rng.sample(turns, len(turns))
        profile = recorded(dealt[:size], tokenizer)
        detectors = {length: Drift(profile, run_length=length) for length in RUN_LENGTHS}
        unprofiled = Drift(Profile.default())
        for turn in dealt[size:]:
            for length, drift in detectors.items():
                alarms[length] += drift.update(turn.steps) is not None
            default += unprofiled.update(turn.steps) is not None
        seen += len(dealt) - size
        progress.advance(task)
    return {
        "turns": seen,
        "streams": streams,
        "sound": sum(turn.sound for turn in turns) / len(turns),
        "alarms": {str(length): count for length, count in alarms.items()},
        "default_profile_alarms": default,
    }


def trajectory(
    name: str,
    steps: int,
    heats: Sequence[float],
    cases: Sequence[Case],
    prompts: int,
    progress: Progress,
    task: Any,
) -> dict[float, list[Answered]]:
    """The turns of a training's models, `prompts` a step, from before the first step on."""
    recipe = RECIPES[name]
    assert isinstance(recipe.plan, Reinforcement)
    model, tokenizer = load(CHECKPOINTS / "healthy")
    training = Reinforced(recipe.plan, model, tokenizer, recipe.seed)
    rows: dict[float, list[Answered]] = {heat: [] for heat in heats}
    for step in range(steps + 1):
        part = cases[prompts * step : prompts * (step + 1)]
        for heat in heats:
            rows[heat] += answered(model, tokenizer, part, heat, step)
        # two steps with less than a quarter of the turns sound tell all there is to tell
        last = [[turn.sound for turn in rows[heat][-2 * prompts :]] for heat in heats]
        if all(len(sound) == 2 * prompts and sum(sound) < 0.5 * prompts for sound in last):
            progress.update(task, completed=steps)
            break
        if step < steps:
            training.step(step)
            progress.advance(task)
    return rows


def detected(turns: Sequence[Answered], profile: Profile, prompts: int) -> dict[str, Any]:
    """When soundness fell, and when the alarms came."""
    soundness = [
        sum(turn.sound for turn in turns[first : first + prompts]) / prompts
        for first in range(0, len(turns), prompts)
    ]
    drift, default = Drift(profile), Drift(Profile.default())
    alarms: list[Alarm] = []
    statistic: list[float] = []
    unprofiled: list[int] = []
    for number, turn in enumerate(turns):
        alarm = drift.update(turn.steps)
        statistic.append(alarm.statistic if alarm else drift.statistic)
        if alarm:
            alarms.append(alarm)
        if default.update(turn.steps):
            unprofiled.append(number + 1)
    first = alarms[0] if alarms else None
    return {
        "sound": [round(share, 4) for share in soundness],
        "falls": below(soundness, 0.9 * soundness[0]),
        "collapses": below(soundness, 0.5),
        "alarm_turn": first.turn if first else None,
        "alarm_step": (first.turn - 1) // prompts if first else None,
        "alarm": str(first) if first else None,
        "alarm_turns": [alarm.turn for alarm in alarms],
        "default_profile_alarm_turn": unprofiled[0] if unprofiled else None,
        "default_profile_alarm_step": (unprofiled[0] - 1) // prompts if unprofiled else None,
        "statistic": [round(value, 3) for value in statistic],
        "prompts": prompts,
    }


def below(shares: Sequence[float], limit: float) -> int | None:
    return next((step for step, share in enumerate(shares) if share < limit), None)


def summary(modes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        mode: {key: row[key] for key in ("falls", "collapses", "alarm_step", "alarm_turn", "alarm")}
        for mode, row in modes.items()
    }


def table(trajectories: dict[str, dict[str, dict[str, Any]]]) -> Table:
    made = Table(
        title="Training steps at which turns stop being sound, and at which the alarm comes"
    )
    for heading in ("recipe", "decoding", "below 90%", "below 50%", "alarm at", "turns", "default"):
        made.add_column(heading)
    made.add_column("what it says", overflow="fold")
    for name, modes in trajectories.items():
        for mode, row in modes.items():
            columns = (
                "falls", "collapses", "alarm_step", "alarm_turn", "default_profile_alarm_step"
            )  # fmt: skip
            cells = ["never" if row[column] is None else str(row[column]) for column in columns]
            made.add_row(name, mode, *cells, row["alarm"] or "")
    return made


def draw(trajectories: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """One column a recipe, one row a temperature: sound turns, and the detector's statistic up to
    its first alarm."""
    modes = list(next(iter(trajectories.values())))
    figure, axes = plt.subplots(
        len(modes),
        len(trajectories),
        figsize=(3.1 * len(trajectories), 2.5 * len(modes)),
        squeeze=False,
    )
    for column, (name, rows) in enumerate(trajectories.items()):
        for mode, axis in zip(modes, axes[:, column], strict=True):
            row = rows[mode]
            prompts = row["prompts"]
            middle = [step + 0.5 for step in range(len(row["sound"]))]
            axis.plot(middle, row["sound"], color="tab:blue")
            axis.set_ylim(-0.03, 1.03)
            axis.set_title(f"{name}, {mode}", fontsize=9)
            axis.grid(alpha=0.3)
            if row["collapses"] is not None:
                axis.axvspan(row["collapses"], len(row["sound"]), color="tab:red", alpha=0.12)
            if row["alarm_turn"] is not None:
                axis.axvline(row["alarm_turn"] / prompts, color="tab:red", linewidth=1.5)
            other = axis.twinx()
            until = row["statistic"][: row["alarm_turn"]]
            turns = [(number + 1) / prompts for number in range(len(until))]
            other.plot(turns, until, color="tab:grey", linewidth=1)
            other.axhline(RUN_LENGTHS[-1], color="tab:grey", linestyle=":", linewidth=1)
            other.set_yscale("log")
            other.set_ylim(0.01, 1e6)
            if column < len(trajectories) - 1:
                other.set_yticklabels([])
            else:
                other.set_ylabel("detector", fontsize=8)
        axes[-1, column].set_xlabel("training step")
    for axis in axes[:, 0]:
        axis.set_ylabel("sound turns", color="tab:blue")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)
