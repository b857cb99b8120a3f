"""Recovered validity: what each way of decoding or repairing gives back of damaged models.

    python -m benchmarks.recovered_validity [--prompts 60] [--checkpoint NAME] [--way NAME]
    python -m benchmarks.recovered_validity --model DIR --cases FILE [--reference DIR]

Checkpoints x ways on the same prompts, greedy, one turn at a time, all in this process. Ways are
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

AFTERWARDS = ("json_repair", "repair")
WAYS = (
    "unguarded", *AFTERWARDS, *(name for name in DECODERS if name not in ("unguarded", "recover")),
    "recover", "recover, reference",
)  # fmt: skip
MAX_NEW_TOKENS = 160


def main(
    prompts: Annotated[int, typer.Option(min=1, help="Cases for each checkpoint.")] = 60,
    checkpoints: Annotated[list[str] | None, typer.Option("--checkpoint")] = None,
    ways: Annotated[list[str] | None, typer.Option("--way", help="Only these.")] = None,
    model: Annotated[str, typer.Option(help="A model's folder, instead of the lab's.")] = "",
    reference: Annotated[str, typer.Option(help="The model from before the damage.")] = "",
    cases: Annotated[Path | None, typer.Option(help="As for `toolguard diagnose`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line, as it is done.")] = False,
) -> None:
    names = [model] if model else checkpoints or list(toolguard.checkpoint_names())
    found = toolguard.read_cases(cases) if cases else toolguard.held_out()
    healthy = _load(reference or str(toolguard.checkpoint("healthy"))) if not model else None
    if model and reference:
        healthy = _load(reference)
    wanted = [way for way in ways or WAYS if healthy is not None or "reference" not in way]
    rows: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(names) * len(wanted))
        for name in names:
            path = name if model else str(toolguard.checkpoint(name))
            subject = Subject(path, found[:prompts], healthy)
            for way in wanted:
                bars.update(bar, description=f"{name}, {way}")
                rows.append({"checkpoint": name, "way": way, **subject.measure(way)})
                bars.advance(bar)
                if as_json:
                    print(json.dumps(rows[-1]), flush=True)
    if as_json:
        return
    table = Table(title=f"{len(found[:prompts])} prompts")
    for heading in rows[0]:
        table.add_column(heading.replace("_", "\n"))
    for row in rows:
        table.add_row(*(f"{v:.1%}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


class Subject:
    """One model, and what it writes unguarded."""

    def __init__(self, path: str, cases: Sequence[Case], reference: Any) -> None:
        self.cases = cases
        self.model, self.reference = _load(path), reference
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.format = toolguard.recognise(self.tokenizer)
        self.ends = end_tokens(self.model, self.tokenizer, self.format)
        self.prompts = [
            self.tokenizer(
                prompt_of(self.tokenizer, case.messages, case.toolset), add_special_tokens=False
            )["input_ids"]
            for case in cases
        ]

    def measure(self, way: str) -> dict[str, Any]:
        """The rates of one way, what it cost, and what it raised."""
        turns, seconds, errors = [], [], Counter[str]()
        tokens = 0
        for case, prompt in zip(self.cases, self.prompts, strict=True):
            started = time.perf_counter()
            try:
                turn = self.turn(way, case, prompt)
            except Exception as error:  # peers raise anything, and it is what is shown
                turn = toolguard.read_turn("", self.format, case.toolset)
                errors[f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"] += 1
            seconds.append(time.perf_counter() - started)
            turns.append(turn)
            tokens += len(turn.ids)
        pairs = list(zip(self.cases, turns, strict=True))
        states = Counter(turn.state for turn in turns)
        sound = [(case, turn) for case, turn in pairs if turn.state == "healthy_call"]
        return {
            **{state: states[state] / len(turns) for state in STATES},
            **{name: _share(found) for name, found in hits(self.cases, turns).items()},
            "wrong": sum(not is_exact(case, turn) for case, turn in sound) / len(turns),
            "tokens": tokens,
            "ms_a_turn": round(1000 * statistics.median(seconds)),
            "errors": "; ".join(f"{text} ({count})" for text, count in errors.most_common(2)),
        }

    def turn(self, way: str, case: Case, prompt: Sequence[int]) -> Turn:
        """The turn that a way comes to."""
        if way in AFTERWARDS:
            written = self.turn("unguarded", case, prompt)
            return _REPAIRS[way](written, case, self.format)
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


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0


if __name__ == "__main__":
    typer.run(main)
