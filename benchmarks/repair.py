"""What repair gives back on real transcripts of damaged models, beside others on the same messages.

    python -m benchmarks.repair [--transcripts FILE] [--json] [--verbose]

Needs json-repair and partial-json-parser. vLLM's parser takes part where vLLM can be imported.

A message is *corrupt* where `read_turn` finds a fault, *recovered* where what repair makes of it is
a healthy call, *cleaned* where it is a healthy reply. A message is *wrongly accepted* if a call was
accepted from it that is unsafe by `benchmarks/unsafe.py`, the same rule for all. *Precision* is the
share of the messages with calls accepted that are not wrongly accepted; *recall* the share
of those that the hand rule finds recoverable (`benchmarks/hand_rule.py`) from which exactly its
calls were accepted. `differ` counts messages where the hand rule has other calls. On healthy
messages all are to accept what stands there, and no call of a plain reply: `healthy kept`. Where
they accept something else, it counts as accepted, and may be wrongly so. Exits 1 if toolguard
accepts wrongly.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import toolguard
from toolguard import Repair, WireFormat

from .hand_rule import recoverable
from .peers import Calls, peers
from .real_data import DATA, Message, made_calls, messages
from .unsafe import unsafe

OURS = "toolguard"
STATES = ("healthy_call", "healthy_response", "polluted", "collapsed")


def main(
    transcripts: Annotated[Path, typer.Option()] = DATA / "transcripts_dev.jsonl.xz",
    wire_format: Annotated[str, typer.Option("--format", help="Or `auto`.")] = "hermes",
    every: Annotated[int, typer.Option(min=1, help="Take every Nth message.")] = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    verbose: Annotated[bool, typer.Option(help="Also what was refused, missed, wrong.")] = False,
) -> None:
    if not transcripts.is_file():
        raise typer.BadParameter(f"no {transcripts}: set TOOLGUARD_DATA, or give --transcripts")
    rows = messages(transcripts)[::every]
    form = wire_format if wire_format == "auto" else WireFormat.load(wire_format)
    others, absent = peers()
    by_checkpoint: dict[str, Counter[str]] = defaultdict(Counter)
    by_reader: dict[str, Counter[str]] = {name: Counter() for name in (OURS, *others)}
    lines: list[str] = []
    for row in track(rows, "messages", console=Console(stderr=True), transient=True):
        repair = toolguard.repair(row.text, row.toolset, form)
        accepted = {OURS: accepted_from(repair)}
        accepted |= {name: peer(row.text, row.toolset) for name, peer in others.items()}
        by_checkpoint[row.checkpoint].update(outcome(repair, accepted[OURS], row))
        wanted = recoverable(row.text, row.toolset) if repair.before.faults else []
        for name, calls in accepted.items():
            by_reader[name].update(judged(calls, wanted, repair, row))
        lines += described(repair, accepted[OURS], wanted, row)
    if as_json:
        print(
            json.dumps(
                {
                    "checkpoints": {name: dict(c) for name, c in by_checkpoint.items()},
                    "readers": {name: summary(c) for name, c in by_reader.items()},
                    "absent": absent,
                }
            )
        )
    else:
        show_readers({name: summary(c) for name, c in by_reader.items()}, absent)
        show_checkpoints(by_checkpoint)
    if verbose:
        print("\n".join(lines))
    if by_reader[OURS]["wrongly accepted"]:
        raise typer.Exit(1)


def accepted_from(repair: Repair) -> Calls:
    """The calls that a user of a repair would run."""
    return made_calls(repair.after) if repair.confidence in ("exact", "minimal") else []


def outcome(repair: Repair, calls: Calls, row: Message) -> list[str]:
    """What became of a message: the columns of the table by checkpoint where it counts."""
    columns = ["messages", repair.before.state]
    columns += ["wrongly accepted"] * is_wrong(repair, calls, row)
    if not repair.before.faults:
        return [*columns, "healthy kept" if is_kept(repair, calls) else "healthy changed"]
    columns.append("corrupt")
    if repair.confidence in ("refused", "ambiguous"):
        columns.append(repair.confidence)
    elif repair.after.state == "healthy_call":
        columns.append("recovered")
    elif repair.after.state == "healthy_response":
        columns.append("cleaned")
    return columns


def is_wrong(repair: Repair, calls: Calls, row: Message) -> bool:
    return not is_read(repair, calls) and bool(unsafe(calls, row.text, row.toolset))


def is_read(repair: Repair, calls: Calls) -> bool:
    """What stands in a healthy message, and nothing else, was accepted."""
    return not repair.before.faults and calls == made_calls(repair.before)


def is_kept(repair: Repair, calls: Calls) -> bool:
    return repair.after is repair.before and calls == made_calls(repair.before)


def judged(calls: Calls, wanted: Calls, repair: Repair, row: Message) -> list[str]:
    """What a reader's calls count as."""
    if is_read(repair, calls):
        return ["healthy", "healthy kept"]
    reasons = {reason for _, reason in unsafe(calls, row.text, row.toolset)}
    counts = ["corrupt" if repair.before.faults else "healthy", *["accepted"] * bool(calls)]
    counts += [*sorted(reasons), *["wrongly accepted"] * bool(reasons)]
    if wanted:
        counts += ["recoverable", *["found"] * (calls == wanted)]
        counts += ["differ"] * bool(calls and calls != wanted)
    return counts


def described(repair: Repair, calls: Calls, wanted: Calls, row: Message) -> list[str]:
    """Lines on what was not recovered, wrongly so, or changed though it was healthy."""
    if is_read(repair, calls):
        return []
    lines = [
        f"WRONG {row.id}: {reason}: {json.dumps(call, ensure_ascii=False)} from {row.text!r}"
        for call, reason in unsafe(calls, row.text, row.toolset)
    ]
    if not repair.before.faults:
        lines.append(f"CHANGED {row.id}: {row.text!r} to {repair.text!r}")
    elif not calls:
        fault = repair.before.faults[0]
        word = "MISSED" if wanted else repair.confidence
        text = f" from {row.text[:200]!r}" if wanted else ""
        lines.append(f"{word} {row.id}: {fault.kind}: {fault.message}: {repair.reason}{text}")
    elif wanted and calls != wanted:
        lines.append(f"DIFFERS {row.id}: {calls} for {wanted}")
    return lines


def summary(counts: Counter[str]) -> dict[str, Any]:
    right = counts["accepted"] - counts["wrongly accepted"]
    return {
        **counts,
        "precision": round(right / counts["accepted"], 4) if counts["accepted"] else None,
        "recall": round(counts["found"] / counts["recoverable"], 4)
        if counts["recoverable"]
        else None,
    }


def show_readers(readers: dict[str, dict[str, Any]], absent: dict[str, str]) -> None:
    columns = (
        *(
            "wrongly accepted",
            "unknown tool",
            "schema",
            "invented",
            "another speaker",
            "cut off",
        ),
        *("accepted", "precision", "recoverable", "found", "differ", "recall"),
        *("healthy", "healthy kept"),
    )
    table = Table(title="Corrupt messages, unsafe calls first")
    show(table, "reader", columns, readers)
    for name, why in absent.items():
        print(f"{name} is absent: {why}")


def show_checkpoints(checkpoints: dict[str, Counter[str]]) -> None:
    columns = (
        *("messages", *STATES, "healthy kept", "healthy changed", "corrupt"),
        *("wrongly accepted", "recovered", "cleaned", "refused", "ambiguous"),
    )
    total = sum(checkpoints.values(), Counter[str]())
    table = Table(title="toolguard.repair by checkpoint")
    show(table, "checkpoint", columns, {**dict(sorted(checkpoints.items())), "all": total})


def show(table: Table, first: str, columns: Sequence[str], rows: dict[str, Any]) -> None:
    table.add_column(first, overflow="fold")
    for heading in columns:
        table.add_column(heading.replace("_", " "), justify="right")
    for name, counts in rows.items():
        table.add_row(name, *("-" if (n := counts.get(c, 0)) is None else str(n) for c in columns))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
