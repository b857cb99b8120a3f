"""toolguard held to the fixtures of `canitoolcall`, a peer's suite of what models really write.

    python -m benchmarks.conformance [--part read] ... [--family glm] ... [--json]

Its 469 fixtures of nine families go through `read_turn`, the streaming parser (seven cuts of text,
the suite's eight cuts of ids), `repair`, the mask, and through vLLM with toolguard's parsers. The
verdicts are the suite's own. A fail is a `fault`, unless docs/conformance.md says that it is
`policy` or `not supported`; what is said there and passes is `stale`.

Ids are the fixtures' own where `TOOLGUARD_DATA` has the tokenizer, else those of Qwen3's vocabulary
with the format's control tokens. vLLM's part runs in this environment or in that of
`--vllm-python`; gpt-oss is left out there, since vLLM reads it with a parser of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from canitoolcall.results import Status
from rich.console import Console
from rich.progress import track

from toolguard import Call

from . import readings
from .cases import Case, cases
from .ids import at_hand, ids_of
from .mask import admitted
from .reasons import FAULT, PARTS, Entry, listed
from .report import SHOWN, conformance_section

ROOT = Path(__file__).parents[2]
NAMES = {Status.PASS: "pass", Status.SOFT_PASS: "soft", Status.FAIL: "fail", Status.ERROR: "fail"}
Row = dict[str, Any]
AS_LISTED = {"options": "read", "mask_options": "mask"}
"""The parts that take formats with their options; their fails are listed with the others."""


def main(
    parts: Annotated[list[str] | None, typer.Option("--part", help="Only these.")] = None,
    families: Annotated[list[str] | None, typer.Option("--family", help="Only these.")] = None,
    vllm_python: Annotated[
        Path, typer.Option(help="An interpreter that has vLLM, where this one has not.")
    ] = ROOT / ".venv-vllm/bin/python",
    as_json: Annotated[bool, typer.Option("--json", help="Rows, a JSON object a line.")] = False,
) -> None:
    if unknown := sorted({*(parts or ())} - {*PARTS}):
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(PARTS)}")
    known = dict.fromkeys(case.fixture.family for case in cases())
    if unknown := sorted({*(families or ())} - {*known}):
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(known)}")
    chosen = [case for case in cases() if not families or case.fixture.family in families]
    rows: list[Row] = []
    for part in parts or PARTS:
        for row in run(part, chosen, vllm_python):
            rows.append(row)
            if as_json:
                print(json.dumps(row), flush=True)
    if not as_json:
        Console().print(conformance_section(rows), markup=False, highlight=False, soft_wrap=True)


def run(part: str, chosen: Sequence[Case], vllm_python: Path) -> Iterator[Row]:
    """The rows of one part: counts by file, fails, and what else is to be said."""
    if part in ("ids", "mask", "mask_options", "vllm") and not at_hand():
        yield {"kind": "left_out", "part": part, "why": "no tokenizers: set TOOLGUARD_DATA"}
        return
    if part == "vllm" and find_spec("vllm") is None:
        yield from elsewhere(chosen, vllm_python)
        return
    counts: dict[str, Counter[str]] = {}
    for case in track(chosen, part, console=Console(stderr=True), transient=True):
        if not takes_part(part, case):
            continue
        status, what = judge(part, case)
        counts.setdefault(case.file, Counter())[NAMES[status]] += 1
        where = {"fixture": case.id, "part": part}
        reason = listed().get(Entry(case.id, AS_LISTED.get(part, part)))
        if NAMES[status] == "fail":
            yield {"kind": "fail", **where, "class": reason or FAULT, "what": what}
        elif reason and part not in AS_LISTED:
            yield {"kind": "stale", **where}
        if part in ("repair", "repair_errors"):
            yield from ({"kind": kind, **where} for kind in harm_of_repair(case))
    for file, found in counts.items():
        yield {"kind": "count", "file": file, "part": part, **{name: found[name] for name in SHOWN}}


def takes_part(part: str, case: Case) -> bool:
    """Whether a part asks anything of a fixture."""
    match part:
        case "repair":
            return case.fixture.expected is not None
        case "repair_errors":
            return case.fixture.expected is None
        case "mask" | "mask_options":
            return case.valid
        case "vllm":
            return case.wire_format.name != "harmony"
        case _:
            return True


def judge(part: str, case: Case) -> tuple[Status, str]:
    """The suite's verdict on a fixture in one part, and what is wrong."""
    match part:
        case "read":
            return case.verdict(readings.read(case))
        case "options":
            return case.verdict(readings.read(replace(case, optional=True)))
        case "stream":
            return case.verdict(readings.stream(case))
        case "ids":
            return case.verdict(readings.by_ids(case, ids_of(case)))
        case "mask":
            return admitted(case, ids_of(case))
        case "mask_options":
            taken = replace(case, optional=True)
            return admitted(taken, ids_of(taken))
        case "vllm":
            from .served import served  # needs vLLM

            return case.verdict(served(case, ids_of(case)))
        case _:
            return case.verdict(readings.repair(case))


def harm_of_repair(case: Case) -> Iterator[str]:
    """`changed`: a healthy turn comes back otherwise; `invented`: a turn comes back with calls that
    the suite does not expect, where it expects calls or a reply."""
    before, after = readings.turn_of(case), readings.repaired(case).after
    if not before.faults and after.raw != before.raw:
        yield "changed"
    expected = case.fixture.expected
    if expected is not None:
        meant = [(call.name, call.arguments) for call in expected.tool_calls]
        if any(_said(call) not in meant for call in after.calls):
            yield "invented"


def _said(call: Call) -> tuple[str, dict[str, Any]]:
    return call.name, call.arguments


def elsewhere(chosen: Sequence[Case], python: Path) -> Iterator[Row]:
    """vLLM's part, in the interpreter that has it."""
    if not python.is_file():
        why = f"no vLLM here, and no {python}: scripts/vllm-env, or --vllm-python"
        yield {"kind": "left_out", "part": "vllm", "why": why}
        return
    families = dict.fromkeys(case.fixture.family for case in chosen)
    command = [str(python), "-m", "benchmarks.conformance", "--json", "--part", "vllm"]
    command += [word for family in families for word in ("--family", family)]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    yield from (json.loads(line) for line in found.stdout.splitlines() if line.startswith("{"))


if __name__ == "__main__":
    typer.run(main)
