"""What repair makes of known calls in every format, damaged in every way: none may come out wrong.

    python -m benchmarks.damage [CASES.jsonl] [--cases 3] [--seed 0] [--show 5] [--json]

Expected calls of the cases are rendered (`toolguard.render`), damaged (see
`benchmarks/damage_types.py`) and repaired. Of each damage and format, so many cases are taken at
random, or `--cases all`. What a format cannot write or a damage cannot touch is left out, and so is
damage that leaves a healthy turn with calls: nobody can see it.

- `recovered`: exactly the calls that were rendered came out.
- `refused`, `ambiguous`: no call came out, and repair says so.
- `silent`: no call came out, and the turn is read as a healthy reply.
- `wrong`: other calls came out; or any at all, of damage that nothing can be proved of. Exits 1.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import toolguard
from toolguard import Repair, Toolset, WireFormat

from .damage_types import DAMAGES, HOPELESS, Rendered
from .real_data import DATA, expected_calls, made_calls, requests
from .repair import accepted_from

OUTCOMES = ("wrong", "recovered", "refused", "ambiguous", "silent")


class Result(NamedTuple):
    """What became of one damaged turn."""

    damage: str
    wire_format: str
    outcome: str
    case: str
    text: str
    calls: list[dict[str, Any]]
    repair: Repair

    def __str__(self) -> str:
        out = json.dumps(accepted_from(self.repair), ensure_ascii=False)
        rules = ", ".join(edit.rule for edit in self.repair.edits)
        return (
            f"{self.outcome}: {self.damage}, {self.wire_format}, {self.case}\n"
            f"  text     {self.text!r}\n"
            f"  rendered {json.dumps(self.calls, ensure_ascii=False)}\n"
            f"  out      {out} ({self.repair.confidence}; {rules or self.repair.reason})"
        )


def main(
    path: Annotated[Path, typer.Argument()] = DATA / "bfcl_dev.jsonl",
    cases: Annotated[str, typer.Option(help="Of each damage and format, or `all`.")] = "3",
    seed: int = 0,
    formats: Annotated[list[str] | None, typer.Option("--format", help="Only these.")] = None,
    damages: Annotated[list[str] | None, typer.Option("--damage", help="Only these.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Print so many wrong and refused.")] = 0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    if not path.is_file():
        raise typer.BadParameter(f"no {path}: set TOOLGUARD_DATA, or name a file of cases")
    rows = requests(path)
    most = len(rows) if cases == "all" else int(cases)
    results: list[Result] = []
    for name in track(
        formats or toolguard.format_names(), "formats", console=Console(stderr=True), transient=True
    ):
        for damage in damages or DAMAGES:
            results += damaged(WireFormat.load(name), damage, rows, most, seed)
    if as_json:
        cells = {(r.damage, r.wire_format): Counter[str]() for r in results}
        for result in results:
            cells[result.damage, result.wire_format][result.outcome] += 1
        print(json.dumps([{"damage": d, "format": f, **c} for (d, f), c in cells.items()]))
    else:
        summarise(results)
    for outcome in ("wrong", "refused", "ambiguous", "silent"):
        found = [r for r in results if r.outcome == outcome and r.damage not in HOPELESS]
        found += [r for r in results if r.outcome == outcome == "wrong" and r.damage in HOPELESS]
        Random(seed).shuffle(found)
        for result in found[:show]:
            print(result, file=sys.stderr if as_json else sys.stdout)
    if any(result.outcome == "wrong" for result in results):
        raise typer.Exit(1)


def damaged(
    wire_format: WireFormat, damage: str, rows: list[dict[str, Any]], most: int, seed: int
) -> Iterator[Result]:
    """The first cases of a random order that can be damaged so."""
    random = Random(f"{seed} {wire_format.name} {damage}")
    done = 0
    for row in random.sample(rows, len(rows)):
        if done == most:
            return
        toolset = Toolset.of(row["tools"])
        calls = expected_calls(row, toolset)
        try:
            turn = Rendered(wire_format, calls, toolguard.render(wire_format, calls))
        except toolguard.FormatError:
            continue
        text = DAMAGES[damage](turn, random)
        if text is None or text == turn.text:
            continue
        repair = toolguard.repair(text, toolset, wire_format)
        outcome = outcome_of(repair, calls, damage)
        if outcome is None or not reads_back(turn, toolset):
            continue
        done += 1
        yield Result(damage, wire_format.name, outcome, row["id"], text, calls, repair)


def reads_back(turn: Rendered, toolset: Toolset) -> bool:
    read = toolguard.read_turn(turn.text, turn.wire_format, toolset)
    return not read.faults and made_calls(read) == turn.calls


def outcome_of(repair: Repair, calls: list[dict[str, Any]], damage: str) -> str | None:
    """None of a healthy turn that calls: the damage cannot be seen, or did none."""
    if not repair.before.faults and repair.before.calls:
        return None
    out = accepted_from(repair)
    if out:
        right = out == calls and damage not in HOPELESS and not repair.after.faults
        return "recovered" if right else "wrong"
    if repair.confidence == "ambiguous":
        return "ambiguous"
    return "refused" if repair.before.faults else "silent"


def summarise(results: list[Result]) -> None:
    by_damage = Table(title="By damage")
    grid = Table(title="Recovered of all; ! where calls came out wrong")
    grid.add_column("format")
    by_damage.add_column("")
    for heading in ("damage", "turns", *OUTCOMES):
        by_damage.add_column(heading)
    seen = [damage for damage in DAMAGES if any(r.damage == damage for r in results)]
    for number, damage in enumerate(seen, 1):
        outcomes = Counter(r.outcome for r in results if r.damage == damage)
        turns = [outcomes.total(), *map(outcomes.__getitem__, OUTCOMES)]
        by_damage.add_row(str(number), damage.replace("_", " "), *map(str, turns))
        grid.add_column(str(number))
    outcomes = Counter(r.outcome for r in results)
    turns = [outcomes.total(), *map(outcomes.__getitem__, OUTCOMES)]
    by_damage.add_row("", "all", *map(str, turns))
    for name in dict.fromkeys(r.wire_format for r in results):
        own = [r for r in results if r.wire_format == name]
        grid.add_row(name, *(cell([r for r in own if r.damage == damage]) for damage in seen))
    Console().print(by_damage)
    Console().print(grid)


def cell(results: list[Result]) -> str:
    outcomes = Counter(result.outcome for result in results)
    if not results:
        return ""
    return f"{outcomes['recovered']}/{len(results)}" + "!" * bool(outcomes["wrong"])


if __name__ == "__main__":
    typer.run(main)
