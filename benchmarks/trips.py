"""Would mask pressure or a regretted opener tell wrong calls that the content score does not?

`python -m benchmarks.trips [--reference]` has every checkpoint answer under `recover`, with nothing
taken back, and gives each call that was finished three signs, all the larger the worse:

- `content`: what `recover` judges a first call by: the mean negative log-probability of its names
  and values among content (doubted above -log 0.9);
- `pressure`: mask pressure, summed over the call;
- `regret`: the largest mean illegal mass over a few steps in a row, from the opener on: the legal
  mass was under a floor there.

A call is right if the case asks for it. Of wrong calls those where a plain reply belongs are
`needless`: only for them taking back has a way to a right turn, a reply. The others are `mistaken`.
Per checkpoint: the area under the curve of each sign, wrong calls against right ones; first for all
calls, then for those that the content score does not doubt, where another sign could add
something. Thresholds are chosen on fresh cases, over all checkpoints, as those that catch most
undoubted first calls that are needless for the right ones they cost (each counts one); what they
catch and cost is counted on held-out prompts. `all` shows the most that any trip of this kind can
bring: every first call is doubted, whatever its signs, and gives way to a reply that is likelier
by the same margin as now.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoTokenizer

import toolguard
from benchmarks.despiking import auc
from benchmarks.drift import fresh_cases
from benchmarks.lab.cases import read_cases
from benchmarks.recovery import LOST, load, toolguard_cases
from toolguard import GuardState
from toolguard.integrations.transformers import generate
from toolguard.policy import recover
from toolguard.policy.recover import CONFIDENCE, Recovery

SIGNS = ("content", "pressure", "regret")
SEED, BATCH = 14, 65
STEPS = 4
"""How many steps in a row a regret lasts."""


class Onlooker(Recovery):
    """Takes nothing back, and remembers where calls began and how sure their content was."""

    seen: ClassVar[list[Onlooker]] = []

    def __init__(self, guard: toolguard.Guard) -> None:
        super().__init__(guard)
        self.calls: list[tuple[int, float]] = []  # where it began, and its content score
        self.seen.append(self)

    def follow(self, state: GuardState, content: float) -> GuardState:
        following = super().follow(state, content)
        if state.done:
            places = [*self._openers, len(state.ids)]
            self.calls = [(start, self._score(start, end)) for start, end in pairwise(places)]
        return following

    def _take_back(self, state: GuardState, kind: recover.Kind, back: int) -> None:
        pass


@dataclass(frozen=True)
class Judged:
    """A finished call: its signs, whether it is right, needless, and the turn's first."""

    content: float
    pressure: float
    regret: float
    right: bool
    needless: bool
    first: bool

    @property
    def doubted(self) -> bool:
        return self.first and self.content > -math.log(CONFIDENCE)


def main(
    prompts: Annotated[int, typer.Option(min=1, max=640, help="Held-out prompts.")] = 130,
    fresh: Annotated[int, typer.Option(min=1, help="Cases to choose thresholds on.")] = 130,
    checkpoints: Annotated[list[str] | None, typer.Option("--checkpoint")] = None,
    reference: Annotated[bool, typer.Option(help="De-spike with `healthy`.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    choosing = toolguard_cases(fresh_cases(fresh, SEED, read_cases()))
    held_out = toolguard.held_out()[:prompts]
    names = checkpoints or [name for name in toolguard.checkpoint_names() if name not in LOST]
    options = {"reference": load("healthy")} if reference else {}
    chosen: list[Judged] = []
    found: dict[str, list[Judged]] = {}
    bound: dict[str, dict[str, Any]] = {}
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(names) * (fresh + 3 * prompts))

        def answer(model: Any, cases: Sequence[toolguard.Case]) -> list[toolguard.Turn]:
            turns = []
            for turn in toolguard.answer(
                model, tokenizer, cases, batch=BATCH, policy="recover", trace=True, **options
            ):
                turns.append(turn)
                bars.advance(bar)
            return turns

        def judged(model: Any, cases: Sequence[toolguard.Case]) -> list[Judged]:
            Onlooker.seen = []
            generate.Recovery = Onlooker  # type: ignore[misc]
            turns = answer(model, cases)
            generate.Recovery = Recovery  # type: ignore[misc]
            return [
                call
                for case, turn, onlooker in zip(cases, turns, Onlooker.seen, strict=True)
                for call in calls_of(case, turn, onlooker)
            ]

        for name in names:
            bars.update(bar, description=name)
            model = load(name)
            chosen += judged(model, choosing)
            found[name] = judged(model, held_out)
            bound[name] = {}
            for mode, confidence in (("now", CONFIDENCE), ("all", 1.1)):
                recover.CONFIDENCE = confidence
                score = toolguard.score(held_out, answer(model, held_out), 0.0)
                bound[name][mode] = f"{score.exact_match:.1%} / {score.no_call_kept:.1%}"
            recover.CONFIDENCE = CONFIDENCE
    limits = {sign: threshold(chosen, sign) for sign in SIGNS[1:]}
    found["all"] = [call for calls in found.values() for call in calls]
    rows = {
        name: {**separation(calls), **gains(calls, limits), **bound.get(name, {})}
        for name, calls in found.items()
    }
    if as_json:
        print(json.dumps({"thresholds": limits, "checkpoints": rows}))
        return
    table = Table(title=f"Held-out calls; thresholds from fresh ones: {limits}")
    for heading in ("", *rows):
        table.add_column(heading.replace("_", " "), justify="right")
    for figure in rows[names[0]]:
        cells = [str(row.get(figure, "")) for row in rows.values()]
        table.add_row(figure.replace("_", " "), *cells)
    Console().print(table)


def calls_of(case: toolguard.Case, turn: toolguard.Turn, seen: Onlooker) -> list[Judged]:
    """The calls of a turn; none of a turn with a call that only its schema refuses."""
    assert turn.report is not None
    if len(turn.calls) != len(seen.calls):
        return []
    asked = [json.dumps([call["name"], call["arguments"]], sort_keys=True) for call in case.calls]
    places = [start for start, _ in seen.calls] + [len(turn.report.steps)]
    found = []
    for number, (call, (start, score)) in enumerate(zip(turn.calls, seen.calls, strict=True)):
        steps = turn.report.steps[start : places[number + 1]]
        illegal = [step.illegal for step in steps[1:]]
        windows = range(max(1, len(illegal) - STEPS + 1))
        found.append(
            Judged(
                -score,
                sum(step.pressure for step in steps),
                max(sum(illegal[at : at + STEPS]) / STEPS for at in windows),
                json.dumps([call.name, call.arguments], sort_keys=True) in asked,
                not case.calls,
                number == 0,
            )
        )
    return found


def separation(calls: Sequence[Judged]) -> dict[str, Any]:
    """How well each sign tells wrong calls from right ones: of all, then of undoubted ones."""
    row: dict[str, Any] = {}
    for group, some in (("", calls), ("undoubted_", [each for each in calls if not each.doubted])):
        wrong = torch.tensor([not each.right for each in some], dtype=torch.bool)
        row[f"{group}calls"] = len(some)
        row[f"{group}needless"] = sum(each.needless for each in some)
        row[f"{group}mistaken"] = int(wrong.sum()) - row[f"{group}needless"]
        for sign in SIGNS:
            values = torch.tensor([getattr(each, sign) for each in some])
            row[f"{group}auc_{sign}"] = (
                round(auc(values, wrong), 3) if wrong.any() and not wrong.all() else None
            )
    return row


def threshold(calls: Sequence[Judged], sign: str) -> float | None:
    """Above which most needless calls are caught for the right ones caught; None: nothing gains."""

    def gain(limit: float) -> int:
        above = [each for each in calls if open_to(each) and getattr(each, sign) > limit]
        return sum(each.needless for each in above) - sum(each.right for each in above)

    limits = [getattr(each, sign) for each in calls if open_to(each)]
    best = max(limits, key=gain)
    return best if gain(best) > 0 else None


def open_to(call: Judged) -> bool:
    """Whether another trip could take it back: it is a turn's first call, and not doubted."""
    return call.first and not call.doubted


def gains(calls: Sequence[Judged], limits: dict[str, float | None]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for sign, limit in limits.items():
        above = [
            each
            for each in calls
            if limit is not None and open_to(each) and getattr(each, sign) > limit
        ]
        needless = sum(each.needless for each in above)
        right = sum(each.right for each in above)
        row[f"{sign}_trips"] = f"{needless} needless, {right} right"
    return row


if __name__ == "__main__":
    typer.run(main)
