"""Recovered validity: what each way of decoding or repairing gives back of damaged models.

    python -m benchmarks.recovered_validity [--prompts 60] [--repeats 3] [--checkpoint NAME] ...
    python -m benchmarks.recovered_validity --model DIR --cases FILE [--reference DIR]

Checkpoints x ways on the same prompts, greedy, one turn at a time, all in this process. Greedy
turns are always the same, so each repeat has other prompts, drawn by a fixed seed; shown are the
medians of the repeats, with quartiles. Ways are
those of `benchmarks.peers_decoding`, and what is done afterwards to the unguarded turns:
`json_repair` on what stands between the tags, and toolguard's repair alone. Where a peer raises on
a prompt, the turn counts as collapsed, and its error is shown.

A turn is read by toolguard, except `json_repair`'s, whose calls are taken as they are. *Wrong* is a
share of all turns: sound calls that are not the expected ones, where one is needed or where none
is. A JSON schema always calls: it keeps no reply.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard
from toolguard import Call, Case, Guard, Turn, WireFormat
from toolguard.evaluation.score import hits, is_exact
from toolguard.integrations.transformers.generate import end_tokens, prompt_of
from toolguard.parsing.turn import STATES

from .peers import peers
from .peers_decoding import DECODERS, Request, decoder
from .recovered_report import shown, sizes

AFTERWARDS = ("json_repair", "repair")
WAYS = (
    "unguarded", *AFTERWARDS, *(name for name in DECODERS if name not in ("unguarded", "recover")),
    "recover", "recover, reference",
)  # fmt: skip
MAX_NEW_TOKENS = 160
FRESH = 520
"""On the held-out prompts after these, thresholds of `recover` were chosen."""


def main(
    prompts: Annotated[int, typer.Option(min=1, help="Cases of a repeat, the same for all.")] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="Each with other cases.")] = 3,
    checkpoints: Annotated[list[str] | None, typer.Option("--checkpoint")] = None,
    ways: Annotated[list[str] | None, typer.Option("--way", help="Only these.")] = None,
    model: Annotated[str, typer.Option(help="A model's folder, instead of the lab's.")] = "",
    reference: Annotated[str, typer.Option(help="The model from before the damage.")] = "",
    cases: Annotated[Path | None, typer.Option(help="As for `toolguard diagnose`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line, as it is done.")] = False,
) -> None:
    names = [model] if model else checkpoints or list(toolguard.checkpoint_names())
    found = toolguard.read_cases(cases) if cases else toolguard.held_out()[:FRESH]
    samples = drawn(found, prompts, repeats)
    healthy = _load(reference or str(toolguard.checkpoint("healthy"))) if not model else None
    if model and reference:
        healthy = _load(reference)
    wanted = [way for way in ways or WAYS if healthy is not None or "reference" not in way]
    rows: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(names) * len(wanted))
        for name in names:
            subject = Subject(name if model else str(toolguard.checkpoint(name)), samples, healthy)
            for way in wanted:
                bars.update(bar, description=f"{name}, {way}")
                rows.append({"checkpoint": name, "way": way, **subject.measure(way)})
                bars.advance(bar)
                if as_json:
                    print(json.dumps(rows[-1]), flush=True)
    if as_json:
        return
    table = Table(title=f"{sizes(rows[0])}; percent")
    for heading in shown(rows[0]):
        table.add_column(heading.replace("_", "\n"))
    for row in rows:
        table.add_row(*shown(row).values())
    Console().print(table)


def drawn(cases: Sequence[Case], size: int, repeats: int) -> list[list[Case]]:
    """Samples without a case in common, each of `size` cases or as many as there are for it.

    Raises:
        typer.BadParameter: there are fewer cases than samples.
    """
    size = min(size, len(cases) // repeats)
    if not size:
        raise typer.BadParameter(f"{len(cases)} cases are too few for {repeats} repeats")
    order = Random(0).sample(list(cases), size * repeats)
    return [order[start : start + size] for start in range(0, len(order), size)]


class Subject:
    """One model, and what it writes unguarded."""

    def __init__(self, path: str, samples: Sequence[Sequence[Case]], reference: Any) -> None:
        self.samples = samples
        self.model, self.reference = _load(path), reference
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.format = toolguard.recognise(self.tokenizer)
        self.ends = end_tokens(self.model, self.tokenizer, self.format)
        self._unguarded: dict[int, tuple[Turn, float]] = {}

    def measure(self, way: str) -> dict[str, Any]:
        """Of each sample the rates of one way and what it cost; and what it raised."""
        found: dict[str, list[Any]] = {}
        errors = Counter[str]()
        for cases in self.samples:
            for name, value in self._sample(way, cases, errors).items():
                found.setdefault(name, []).extend([] if value is None else [value])
        said = "; ".join(f"{text} ({count})" for text, count in errors.most_common(2))
        return {"prompts": [len(cases) for cases in self.samples], **found, "errors": said}

    def _sample(
        self, way: str, cases: Sequence[Case], errors: Counter[str]
    ) -> dict[str, float | None]:
        """A rate is None where no turn of the sample can count."""
        turns, seconds = [], []
        for case in cases:
            started = time.perf_counter()
            try:
                turn, spent = self._timed(way, case)
            except Exception as error:  # peers raise anything, and it is what is shown
                turn = toolguard.read_turn("", self.format, case.toolset)
                spent = time.perf_counter() - started
                errors[f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"] += 1
            seconds.append(spent)
            turns.append(turn)
        pairs = list(zip(cases, turns, strict=True))
        states = Counter(turn.state for turn in turns)
        sound = [(case, turn) for case, turn in pairs if turn.state == "healthy_call"]
        return {
            **{state: states[state] / len(turns) for state in STATES},
            **{
                name: sum(hit) / len(hit) if hit else None
                for name, hit in hits(cases, turns).items()
            },
            "wrong": sum(not is_exact(case, turn) for case, turn in sound) / len(turns),
            "tokens": sum(len(turn.ids) for turn in turns),
            "ms_a_turn": round(1000 * statistics.median(seconds), 1),
        }

    def _timed(self, way: str, case: Case) -> tuple[Turn, float]:
        """A turn, and the seconds that it took; what is written without a guard is, once."""
        if way in AFTERWARDS:
            written, before = self._timed("unguarded", case)
            started = time.perf_counter()
            return _REPAIRS[way](written, case, self.format), before + time.perf_counter() - started
        if way == "unguarded" and id(case) in self._unguarded:
            return self._unguarded[id(case)]
        started = time.perf_counter()
        made = self.turn(way, case), time.perf_counter() - started
        if way == "unguarded":
            self._unguarded[id(case)] = made
        return made

    def turn(self, way: str, case: Case) -> Turn:
        """The turn that a way of decoding comes to."""
        prompt = self.tokenizer(
            prompt_of(self.tokenizer, case.messages, case.toolset), add_special_tokens=False
        )["input_ids"]
        name, _, with_reference = way.partition(", ")
        decode = decoder(name, self.reference if with_reference else None)
        made = decode(
            Request(self.model, self.tokenizer, self.format, case.toolset, prompt, MAX_NEW_TOKENS)
        )
        if isinstance(made, str):
            return toolguard.read_turn(made, self.format, case.toolset)
        guard = Guard.compile(self.format, case.toolset, self.tokenizer, end_tokens=self.ends)
        read = guard.read(made)
        return replace(read, ids=tuple(made))


def _by_json_repair(turn: Turn, case: Case, wire_format: WireFormat) -> Turn:
    """The calls that json_repair makes of it; nothing is validated, as users of it do not."""
    calls = peers()[0]["json_repair"](turn.raw, case.toolset) if turn.calling else []
    if not calls:
        return turn
    made = tuple(Call(call["name"], call["arguments"], (0, 0)) for call in calls)
    valid = all(not case.toolset.errors(call.name, call.arguments) for call in made)
    return Turn(turn.raw, "", "", made, True, "healthy_call" if valid else "polluted", ids=turn.ids)


def _by_repair(turn: Turn, case: Case, wire_format: WireFormat) -> Turn:
    after = toolguard.repair(turn.raw, case.toolset, wire_format).after
    return replace(after, ids=turn.ids)


_REPAIRS: dict[str, Callable[[Turn, Case, WireFormat], Turn]] = {
    "json_repair": _by_json_repair,
    "repair": _by_repair,
}


def _load(path: str) -> Any:
    bundled = Path(path).parent == toolguard.checkpoint("healthy").parent
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32 if bundled else "auto")


if __name__ == "__main__":
    typer.run(main)
