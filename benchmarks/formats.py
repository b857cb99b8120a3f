"""Every wire format on real requests: rendered, walked token by token under the guard, read back.

`python -m benchmarks.formats CASES.jsonl [--tokenizer DIR]...` takes cases with `tools` and
`expected_calls` (`bfcl_dev.jsonl`), renders the expected calls in each format, and counts how many
are admitted by the mask and read back equal, and what a mask costs in CPU time (whatever else the
machine is doing), in calls and in prose, as a ratio to hermes' in the same run. What a format
cannot write (several calls in a turn of one, an argument name that cannot stand bare) is counted as
refused.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from toolguard import Guard, Toolset, WireFormat

from .real_data import expected_calls, made_calls


def main(
    cases: Path,
    tokenizer: Annotated[list[str] | None, typer.Option(help="A folder; the bundled one.")] = None,
    formats: Annotated[list[str] | None, typer.Option("--format", help="Only these.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth case.")] = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    rows = [json.loads(line) for line in cases.read_text("utf-8").splitlines()][::every]
    folders = tokenizer or [str(toolguard.checkpoint("healthy"))]
    results: dict[str, dict[str, Any]] = {}
    for folder in folders:
        loaded = AutoTokenizer.from_pretrained(folder)
        for name in formats or toolguard.format_names():
            key = f"{name}, {Path(folder).name}"
            results[key] = walk(name, loaded, rows, Console(stderr=True))
    for result in results.values():
        for place in ("call", "text"):
            spent = result.pop(f"{place}_us")
            if len(spent) < 2:  # where an answer begins with a header, prose is not at once legal
                continue
            result[f"{place}_median_us"] = round(statistics.median(spent), 1)
            result[f"{place}_p99_us"] = round(statistics.quantiles(spent, n=100)[98], 1)
    for key, result in results.items():
        hermes = results.get(f"hermes, {key.split(', ')[1]}")
        for place in ("call", "text"):
            if hermes and f"{place}_p99_us" in result:
                ratio = result[f"{place}_p99_us"] / hermes[f"{place}_p99_us"]
                result[f"{place}_p99_to_hermes"] = round(ratio, 2)
    if as_json:
        print(json.dumps(results))
        return
    timed = [
        f"{place}_{what}"
        for place in ("call", "text")
        for what in ("median_us", "p99_us", "p99_to_hermes")
    ]
    columns = ("turns", "admitted", "read_back", "refused", *timed, "first_miss")
    table = Table(title="Wire formats on expected calls")
    for heading in ("format, tokenizer", *columns):
        table.add_column(heading.replace("_", " "), overflow="fold")
    for key, result in results.items():
        table.add_row(key, *(str(result.get(name, "")) for name in columns))
    Console().print(table)


def walk(
    name: str, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], bar: Console
) -> dict[str, Any]:
    wire_format = WireFormat.load(name)
    counts: dict[str, int] = defaultdict(int)
    spent: dict[str, list[float]] = {"call": [], "text": []}
    misses: list[str] = []
    for row in track(rows, name, console=bar, transient=True):
        toolset = Toolset.of(row["tools"])
        calls = expected_calls(row, toolset)
        if not calls:
            continue
        try:
            text = toolguard.render(wire_format, calls)
            guard = Guard.compile(wire_format, toolset, tokenizer)
        except (toolguard.FormatError, toolguard.ToolsetError):
            counts["refused"] += 1
            continue
        counts["turns"] += 1
        ids = [*encode(tokenizer, text), guard.vocabulary.end_ids[0]]
        state = guard.start(10_000)
        for place, token in enumerate(ids):
            started = time.thread_time()
            mask = state.mask()
            seconds = time.thread_time() - started
            legal = bool(mask[token >> 5] >> (token & 31) & 1)
            if not legal or not state.accept(token):
                before, wanted = tokenizer.decode(ids[:place])[-40:], tokenizer.decode([token])
                misses.append(f"{row['id']}: {before!r} then {wanted!r}")
                break
            spent["call"].append(1e6 * seconds)
        counts["admitted"] += state.done
        turn = guard.read(ids)
        made = made_calls(turn)
        counts["read_back"] += made == calls and not turn.faults
        if made != calls and state.done:
            misses.append(f"{row['id']}: read as {made} {turn.faults}")
    guard = Guard.compile(wire_format, Toolset.of(rows[0]["tools"]), tokenizer)
    state = guard.start(10_000)
    for token in encode(tokenizer, PROSE):
        started = time.thread_time()
        state.mask()
        spent["text"].append(1e6 * (time.thread_time() - started))
        if not state.accept(token):
            break
    columns = {key: counts[key] for key in ("turns", "admitted", "read_back", "refused")}
    timed = {f"{place}_us": times for place, times in spent.items()}
    return {**columns, **timed, "first_miss": misses[0] if misses else ""}


PROSE = "It is late, and the weather in Paris (France) is fine: 20 degrees [1]. " * 8


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a turn as they come after a prompt, not at the start of a text."""
    for prompt in ("a", "\n"):  # a turn that begins with a letter may make one word with `a`
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids: list[int] = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
        if ids[: len(before)] == before:
            return ids[len(before) :]
    raise ValueError(f"no prompt stands apart from {text[:20]!r}")


if __name__ == "__main__":
    typer.run(main)
