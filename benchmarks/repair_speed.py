"""What reading and repairing cost: ratios within one run, and whether they grow with the text.

    python -m benchmarks.repair_speed [--transcripts FILE] [--repeats 7] [--json]

- `classify`: `toolguard.read_turn` on all messages, beside the plain way to read Hermes' calls: a
  regular expression for the tags, `json.loads`, and jsonschema with validators made beforehand. The
  two take turns; the median of the ratios of each repeat is given, for all messages, for those
  with calls by the plain way, and for those with text and without any control token.
- `repair`: `toolguard.repair` on corrupt messages, beside `read_turn` on the same.
- `growth`: of CPU time when the size doubles, of turns made to be slow, at three sizes: the mean of
  the two steps, each size the least of three. 2 is linear. Exits 1 if one is above 3 (`--most`).
  What is loaded once is told apart: `once` is how much longer the very first run took, in ms. One
  step above 2 is memory: past some hundred KB it comes from the kernel page by page. Where time
  itself grows faster, each step is.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import typer
from rich.console import Console
from rich.table import Table

import toolguard
from toolguard import Toolset, WireFormat

from .real_data import DATA, Message, messages

HERMES = "hermes"
CORRUPT = 10
"""Every so many of the corrupt messages are repaired: a repair takes longer than the rest."""
MEGABYTE = 1_000_000
_TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_TOOLS = [{"name": "f", "parameters": {"properties": {"x": {}}, "required": ["x"]}}]
_CALL = '<tool_call>\n{"name": "f", "arguments": {"x": "%s"}}\n</tool_call>'

INPUTS: dict[str, tuple[Callable[[int], str], int]] = {
    "prose": (lambda n: "All is well. " * (n // 13), MEGABYTE),
    "prose that names a tool": (lambda n: 'Use "f" [1]. ' * (n // 13), MEGABYTE),
    "a long string": (lambda n: _CALL % ("a" * n), MEGABYTE),
    "a long string cut off": (lambda n: (_CALL % ("a" * 2 * n))[:n], MEGABYTE),
    "junk in a call": (lambda n: "<tool_call>\n" + "ab c " * (n // 5), MEGABYTE),
    "junk behind a call": (lambda n: _CALL % "a" + "\n" + "ab c " * (n // 5), MEGABYTE),
    "quotes": (lambda n: "<tool_call>\n{" + '"' * n, MEGABYTE),
    "white space": (lambda n: "<tool_call>" + " \n" * (n // 2), MEGABYTE),
    "openers": (lambda n: "<tool_call>\n" * n, 10_000),
    "closers": (lambda n: "</tool_call>\n" * n, 10_000),
    "calls": (lambda n: "\n".join([_CALL % "a"] * n), 2000),
    "calls with roles": (lambda n: "\nuser\n".join([_CALL % "a"] * n), 2000),
    "names without an end": (lambda n: '<tool_call>\n{"name": "f", ' * n, 10_000),
    "nesting": (lambda n: f'<tool_call>\n{{"name": "f", "arguments": {{"x": {"[" * n}', 10_000),
    "closed nesting": (lambda n: (_CALL % "").replace('""', "[" * n + "]" * n), 10_000),
    "roles": (lambda n: "<tool_call>\n" + "user\nassistant\n" * n, 10_000),
}
"""Turns by name: what makes one of a size, and the largest size."""


def main(
    transcripts: Annotated[Path, typer.Option()] = DATA / "transcripts_dev.jsonl.xz",
    repeats: Annotated[int, typer.Option(min=5)] = 7,
    most: Annotated[float, typer.Option(help="The growth that is not linear any more.")] = 3.0,
    what: Annotated[list[str] | None, typer.Option("--of", help="Growth of these only.")] = None,
    only: Annotated[list[str] | None, typer.Option("--growth", help="Only these inputs.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    ratios = classify(messages(transcripts), repeats) if transcripts.is_file() else {}
    grown = [
        growth(how, name) for name in only or INPUTS for how in what or ("read_turn", "repair")
    ]
    if as_json:
        print(json.dumps({"ratios": ratios, "growth": grown}))
    else:
        show("Ratios", [{"what": what, **ratio} for what, ratio in ratios.items()])
        show("Growth of CPU time when the size doubles", grown)
        if not ratios:
            print(f"no {transcripts}: set TOOLGUARD_DATA to have the ratios")
    if any(row["growth"] > most for row in grown):
        raise typer.Exit(1)


def classify(rows: Sequence[Message], repeats: int) -> dict[str, dict[str, float]]:
    """Medians of ratios, and microseconds a message."""
    hermes = WireFormat.load(HERMES)
    validators = {
        tool: jsonschema.Draft202012Validator(tool.parameters)
        for row in rows
        for tool in row.toolset
    }
    offered = {row.toolset: {t.name: validators[t] for t in row.toolset} for row in rows}
    by_row = [offered[row.toolset] for row in rows]
    kinds = {
        "classify, all": range(len(rows)),
        "classify, calls": [i for i, row in enumerate(rows) if plain(row.text, by_row[i])],
        "classify, no control token": [
            i
            for i, row in enumerate(rows)
            if row.text.strip() and not any(c in row.text for c in hermes.controls)
        ],
    }

    def ours(places: Sequence[int]) -> None:
        for i in places:
            toolguard.read_turn(rows[i].text, hermes, rows[i].toolset)

    def baseline(places: Sequence[int]) -> None:
        for i in places:
            plain(rows[i].text, by_row[i])

    def repairing(places: Sequence[int]) -> None:
        for i in places:
            toolguard.repair(rows[i].text, rows[i].toolset, hermes)

    measured = {
        name: compared(ours, baseline, places, repeats) for name, places in kinds.items() if places
    }
    corrupt = [
        i
        for i, row in enumerate(rows)
        if toolguard.read_turn(row.text, hermes, row.toolset).faults and row.text.strip()
    ][::CORRUPT]
    return measured | {"repair to read_turn, corrupt": compared(repairing, ours, corrupt, repeats)}


def plain(text: str, validators: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls by regular expression, JSON and schema."""
    calls = []
    for body in _TAGGED.findall(text):
        try:
            call = json.loads(body)
            if validators[call["name"]].is_valid(call["arguments"]):
                calls.append(call)
        except (ValueError, KeyError, TypeError):
            continue
    return calls


def compared(
    one: Callable[[Sequence[int]], None],
    other: Callable[[Sequence[int]], None],
    places: Sequence[int],
    repeats: int,
) -> dict[str, float]:
    pairs = [(seconds(lambda: one(places)), seconds(lambda: other(places))) for _ in range(repeats)]
    micro = 1e6 / len(places)
    return {
        "messages": len(places),
        "ratio": round(statistics.median(a / b for a, b in pairs), 2),
        "us": round(micro * statistics.median(a for a, _ in pairs), 1),
        "us of the other": round(micro * statistics.median(b for _, b in pairs), 1),
    }


def growth(how: str, name: str) -> dict[str, Any]:
    """The least of three at each size, taking turns, after a run that loads what is loaded once."""
    make, size = INPUTS[name]
    hermes, toolset = WireFormat.load(HERMES), Toolset.of(_TOOLS)
    texts = [make(size // 4), make(size // 2), make(size)]

    def work(text: str) -> None:
        if how == "repair":
            toolguard.repair(text, toolset, hermes)
        else:
            toolguard.read_turn(text, hermes, toolset)

    first = seconds(lambda: work(texts[0]))
    runs: list[list[float]] = []
    while len(runs) < 3 and sum(map(sum, runs)) < 8:
        runs.append([seconds(partial(work, text)) for text in texts])
    least = [min(times) for times in zip(*runs, strict=True)]
    return {
        "input": name,
        "what": how,
        "characters": len(texts[-1]),
        "ms": round(1000 * least[-1], 1),
        "growth": round(math.sqrt(least[-1] / least[0]), 2),
        "steps": " ".join(f"{b / a:.2f}" for a, b in pairwise(least)),
        "once": round(1000 * (first - least[0]), 1),
    }


def seconds(work: Callable[[], None]) -> float:
    """The CPU time that something takes, whatever else the machine does."""
    started = time.process_time()
    work()
    return time.process_time() - started


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(title=title)
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
