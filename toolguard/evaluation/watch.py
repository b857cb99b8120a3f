"""A training run by step: what its checkpoints or its rollouts do, and whether they drift."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ProfileError, RunError
from ..formats.wire_format import WireFormat
from ..parsing.recognise import recognise
from ..policy import profile as profiles
from ..policy.drift import Drift
from ..policy.profile import Profile
from ..report.report import Position
from ..rows.classify import Classes, Group, classify_files
from ..rows.layout import Layout
from .case import Case, fingerprint_of
from .figures import Figures, drawn, figures, record_profile
from .journal import Journal
from .load import ADAPTER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "toolguard-watch.jsonl"
"""The journal of a run."""
ROLLOUTS = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet")
Step: TypeAlias = int | float | str
_Stamp: TypeAlias = list[int]


@dataclass(frozen=True)
class Watched:
    """A training run, as far as it was watched.

    Attributes:
        steps: the figures by step, in order.
        profile: the file of the profile that drift is told by; None where there is none.
        recorded: on which checkpoint and on how many of its turns the profile was recorded; empty
            where it was given.
        blind: why there is no drift detector; empty where there is one.
        errors: how many rows of rollouts have no turn or no tools.
    """

    steps: dict[Step, Figures]
    profile: Path | None = None
    recorded: str = ""
    blind: str = ""
    errors: int = 0

    @property
    def alarm_step(self) -> Step | None:
        """The first step at which the detector raised an alarm."""
        return next((step for step, made in self.steps.items() if made.alarms), None)

    def to_json(self) -> dict[str, Any]:
        """What was watched, as plain JSON values."""
        return {
            "steps": [{"step": step, **made.to_json()} for step, made in self.steps.items()],
            "alarm_step": self.alarm_step,
            "profile": None if self.profile is None else str(self.profile),
            "profile_recorded": self.recorded or None,
            "no_drift": self.blind or None,
            "errors": self.errors,
        }


@dataclass(frozen=True)
class Asked:
    """How the checkpoints of a run are asked.

    Attributes:
        cases: what they may be asked.
        limit: how many of the cases each is asked; None: all.
        seed: draws these, and seeds the sampling.
        max_new_tokens: the longest turn.
        temperature: 0 is greedy.
        run_length: of the detector (`toolguard.Drift`).
        batch: turns decoded side by side; results are the same up to rounding.
        wire_format: what the checkpoints write; their chat template tells unless given.
    """

    cases: Sequence[Case]
    limit: int | None = None
    seed: int = 0
    max_new_tokens: int = 160
    temperature: float = 0.0
    run_length: float = 10_000
    batch: int = 32
    wire_format: WireFormat | None = None

    def settings(self, profile: Path | None) -> dict[str, Any]:
        """What the figures depend on."""
        try:
            given = _digest(profile.read_bytes()) if profile else "of the first checkpoint"
        except OSError as error:
            raise ProfileError(f"cannot read the profile {profile}: {error}") from error
        names = ("limit", "seed", "max_new_tokens", "temperature", "run_length")
        options = {name: getattr(self, name) for name in names}
        named = {"format": self.wire_format.name} if self.wire_format else {}
        return {"cases": fingerprint_of(self.cases), **options, "profile": given, **named}

    @property
    def options(self) -> dict[str, Any]:
        """For `toolguard.answer`."""
        names = ("batch", "max_new_tokens", "temperature", "seed", "wire_format")
        return {name: getattr(self, name) for name in names}

    def written(self, tokenizer: PreTrainedTokenizerBase) -> WireFormat:
        """The wire format of a checkpoint with this tokenizer."""
        return self.wire_format or recognise(tokenizer)


def checkpoints_of(run: Path) -> dict[int, Path]:
    """The checkpoints of a training run by step: its folders that have a config.json, or an
    adapter_config.json (LoRA).

    The step is the last number in the folder's name, or what its trainer_state.json says.

    Raises:
        RunError: two are of the same step.
    """
    found: dict[int, Path] = {}
    configs = [*run.glob("*/config.json"), *run.glob(f"*/{ADAPTER}")]
    for folder in sorted({path.parent for path in configs}):
        step = _step_of(folder.name)
        if step is None:
            try:
                step = int(json.loads((folder / "trainer_state.json").read_text())["global_step"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a model of another kind, such as the final one
        if step in found:
            raise RunError(f"{found[step]} and {folder} are both of step {step}: take one away")
        found[step] = folder
    return dict(sorted(found.items()))


def has_checkpoints(run: Path, journal: Path | None = None) -> bool:
    """Whether a folder has checkpoints, or a journal of some that may be gone by now."""
    if not run.is_dir():
        return False
    try:
        with (journal or run / NAME).open() as lines:
            if "cases" in json.loads(lines.readline())["toolguard_run"]:
                return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return bool(checkpoints_of(run))


def rollouts_of(run: Path) -> list[Path]:
    """The rollout files in a folder."""
    return sorted(
        path
        for path in run.iterdir()
        if path.name.endswith(ROLLOUTS) and path.is_file() and not path.name.startswith(NAME[:15])
    )


def watch_checkpoints(
    run: Path,
    asked: Asked,
    load_model: Callable[[Path], PreTrainedModel],
    load_tokenizer: Callable[[Path], PreTrainedTokenizerBase],
    *,
    profile: Path | None = None,
    journal: Path | None = None,
    watch: Callable[[str, int, int], None] = lambda doing, done, total: None,
) -> Watched:
    """Watches the checkpoints of a training run that the journal does not have yet.

    Each answers the same cases unguarded, in one order; the drift detector takes in one
    checkpoint's turns after the other's. Unless a profile is given, the first checkpoint's is
    recorded on all cases and kept beside the journal. Turns that answer the same questions at each
    step are not drawn independently, which is what the detector's run length is promised for.

    Args:
        run: the folder of the run.
        asked: how its checkpoints are asked.
        load_model: loads the model in a folder.
        load_tokenizer: and its tokenizer.
        profile: a file of `toolguard profile`, of the healthy model.
        journal: where results are kept; in the folder of the run unless given.
        watch: called with what is done, how many turns are, and of how many.

    Raises:
        RunError: there is no checkpoint, one has changed, or the journal does not fit.
        ProfileError: the profile is broken or of another tokenizer.
    """
    path = journal or run / NAME
    found = checkpoints_of(run)
    if not found and not path.exists():
        raise RunError(
            f"no checkpoints in {run}: no folders with a config.json or an {ADAPTER}, and a number"
        )
    kept = Journal(path, asked.settings(profile))
    done: dict[int, dict[str, Any]] = {int(step): row for step, row in kept.rows["step"].items()}
    new = _new(found, done, path)
    part = drawn(asked.cases, asked.limit, asked.seed)
    own = path.with_name(f"{path.stem}.profile.json")
    said = kept.rows["profile"].get("recorded")
    blind = next((row["blind"] for row in done.values()), "")
    total = len(new) * len(part) + (0 if profile or said else len(asked.cases))
    count = 0

    def advance(doing: str) -> None:
        nonlocal count
        count += 1
        watch(doing, count, total)

    drift: Drift | None = None
    for step, folder in new.items():
        watch(folder.name, count, total)
        tokenizer = load_tokenizer(folder)
        told = profile or (own if said else None)
        if told is not None and drift is None and not blind:
            if said is not None and _file_digest(own) != said["digest"]:
                raise ProfileError(
                    f"{own} is not the profile of the journal any more; name another journal "
                    f"(--out), or delete {path} to start over"
                )
            drift, blind = _detector(Profile.load(told, asked.written(tokenizer), tokenizer), asked)
            if drift is not None and done:
                drift.resume(list(done.values())[-1]["detector"])
        if drift is not None:
            _check_tokenizer(drift.profile, asked.written(tokenizer), tokenizer, folder)
        model = load_model(folder)
        if told is None:
            recorded = record_profile(
                model,
                tokenizer,
                asked.cases,
                watch=lambda turn: advance("profile"),
                **asked.options,
            )
            unfinished = own.with_name(own.name + ".part")
            recorded.save(unfinished)
            unfinished.replace(own)
            said = {"of": f"{recorded.turns} turns of {folder.name}", "digest": _file_digest(own)}
            kept.add("profile", [("recorded", said)])
            drift, blind = _detector(recorded, asked)
        made = figures(
            model,
            tokenizer,
            part,
            drift,
            advance=partial(advance, folder.name),
            **asked.options,
        )
        row = {
            "checkpoint": folder.name,
            "stamp": _stamp(folder),
            **made.to_json(),
            "blind": blind,
            "detector": None if drift is None else drift.to_json(),
        }
        kept.add("step", [(str(step), row)])
        done[step] = row
    steps: dict[Step, Figures] = {
        step: Figures.of_json(row) for step, row in sorted(done.items(), key=lambda item: item[0])
    }
    return Watched(steps, profile or own, said["of"] if said else "", blind)


def watch_rollouts(
    files: Sequence[Path],
    layout: Layout,
    *,
    by: str | None = None,
    journal: Path | None = None,
    workers: int = 1,
    watch: Callable[[Classes], None] = lambda classes: None,
) -> Watched:
    """Reads the rollout files of a training run that the journal does not have as they are now.

    There are no logits in them: states and faults by step are all that is known.

    Args:
        files: JSONL or Parquet files, as `classify_files` reads them.
        layout: where a row keeps its turns and tools.
        by: the column that has the step; unless given, each file is one step, the last number in
            its name.
        journal: where results are kept; beside the first file unless given.
        workers: how many processes read side by side.
        watch: called with each batch.

    Raises:
        RunError: a file is of no step, or the journal does not fit.
        RowError: a file cannot be read.
    """
    path = journal or files[0].parent / NAME
    options = asdict(layout)
    options["tools"] = None if layout.tools is None else _digest(json.dumps(layout.tools).encode())
    kept = Journal(path, {**options, "by": by})
    files = [file for file in files if file.resolve() != path.resolve()]
    read = kept.rows["file"]
    before = 0

    def further(classes: Classes) -> None:
        watch(replace(classes, position=before + classes.position))

    for file in files:
        named = None if by is not None else _step_of(_stem(file))
        if by is None and named is None:
            raise RunError(f"cannot tell the step of {file}: no number in its name, and no --by")
        stamp = _stamp(file) if file.exists() else None
        if str(file) in read and read[str(file)]["stamp"] == stamp:
            before += file.stat().st_size
            continue
        classes = classify_files([file], layout, by=by, workers=workers, watch=further)
        groups = [
            {"step": named if by is None else value, **group.to_json()}
            for value, group in classes.groups.items()
        ]
        row = {"stamp": stamp, "errors": classes.failed, "groups": groups}
        kept.add("file", [(str(file), row)])
        before += file.stat().st_size
    whole = Classes()
    for row in read.values():
        whole.failed += row["errors"]
        for group in row["groups"]:
            counted = Group(group["turns"], Counter(group["states"]), Counter(group["faults"]))
            whole.groups.setdefault(group["step"], Group()).merge(counted)
    steps: dict[Step, Figures] = {
        step: Figures(group.turns, group.states, group.faults)
        for step, group in whole.in_order().items()
    }
    blind = "rollouts have no logits, and the detector looks at control mass"
    return Watched(steps, blind=blind, errors=whole.failed)


def moved(steps: Iterable[Figures], count: int) -> list[tuple[Position, str]]:
    """The positions and tokens whose control mass moved most over the steps."""
    low: dict[tuple[Position, str], float] = {}
    high: dict[tuple[Position, str], float] = {}
    every = [made.masses() for made in steps]
    for pair in dict.fromkeys(pair for masses in every for pair in masses):
        sizes = [masses.get(pair, 0.0) for masses in every]
        low[pair], high[pair] = min(sizes), max(sizes)
    return sorted(high, key=lambda pair: (low[pair] - high[pair], -high[pair]))[:count]


def _stem(file: Path) -> str:
    return next((file.name.removesuffix(end) for end in ROLLOUTS if file.name.endswith(end)), "")


def _step_of(name: str) -> int | None:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else None


def _stamp(path: Path) -> _Stamp:
    """The size of a file, or of a checkpoint's weights, and when it was written."""
    files = [path]
    if path.is_dir():
        weights = [*path.glob("*.safetensors"), *path.glob("*.bin")]
        configs = (path / "config.json", path / ADAPTER)
        files = weights or [config for config in configs if config.is_file()]
    stats = [file.stat() for file in files]
    return [sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]


def _new(found: dict[int, Path], done: dict[int, dict[str, Any]], journal: Path) -> dict[int, Path]:
    """The checkpoints that were not watched yet; those that were have to be the same still."""
    otherwise = f"name another journal (--out), or delete {journal} to start over"
    for step, row in done.items():
        if step in found and row["stamp"] != _stamp(found[step]):
            raise RunError(f"{found[step]} has changed since it was watched; {otherwise}")
    new = {step: folder for step, folder in found.items() if step not in done}
    for step in new:
        if done and step < max(done):
            raise RunError(
                f"step {step} comes before step {max(done)}, which was watched already, and drift "
                f"is told in order; {otherwise}"
            )
    return new


def _detector(profile: Profile, asked: Asked) -> tuple[Drift | None, str]:
    """The detector of drift from a profile, or why there is none."""
    try:
        return Drift(profile, run_length=asked.run_length), ""
    except ProfileError as error:
        return None, str(error)


def _check_tokenizer(
    profile: Profile, wire_format: WireFormat, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    if profiles.fingerprint_of(wire_format, tokenizer) != profile.fingerprint:
        raise ProfileError(
            f"{folder} has another tokenizer than the profile, or writes another format"
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _file_digest(path: Path) -> str:
    try:
        return _digest(path.read_bytes())
    except OSError:
        return ""
