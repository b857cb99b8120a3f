"""Forward passes and wall time on the healthy checkpoint, unguarded and guarded, side by side.

    python -m benchmarks.forced_tokens [--prompts 128] [--repeats 5] [--json]

The guard feeds forced tokens together with the sampled one, so it needs fewer passes for the same
tokens; masks and bookkeeping cost time of their own. Modes alternate within each repeat; the ratio
of a repeat is guarded / unguarded, and medians with quartiles are printed.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard

from .tables import spread

BATCHES = (1, 32)


def measure(
    prompts: int = 128,
    repeats: int = 5,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line, as it is done.")] = False,
) -> None:
    path = toolguard.checkpoint("healthy")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    cases = toolguard.held_out()[:prompts]

    def run(policy: str, batch: int) -> tuple[float, list[toolguard.Turn]]:
        started = time.perf_counter()
        turns = list(toolguard.answer(model, tokenizer, cases, batch=batch, policy=policy))
        return time.perf_counter() - started, turns

    rows: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(BATCHES) * repeats)
        for batch in BATCHES:
            bars.update(bar, description=f"batch {batch}")
            run("enforce", batch)  # compiles and caches the guards
            ratios = []
            for _ in range(repeats):
                plain, before = run("observe", batch)
                guarded, after = run("enforce", batch)
                ratios.append(guarded / plain)
                bars.advance(bar)
            passes = [sum(t.report.forward_passes for t in turns) for turns in (before, after)]
            rows.append(
                {
                    "batch": batch,
                    "same_ids": sum(b.ids == a.ids for b, a in zip(before, after, strict=True)),
                    "turns": len(after),
                    "tokens": sum(len(turn.ids) for turn in after),
                    "passes_unguarded": passes[0],
                    "passes_guarded": passes[1],
                    "time_ratio": ratios,
                }
            )
            if as_json:
                print(json.dumps(rows[-1]), flush=True)
    if as_json:
        return
    table = Table(title="healthy, guarded beside unguarded")
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in rows:
        shown = {**row, "time_ratio": spread(row["time_ratio"], ".2f")}
        table.add_row(*map(str, shown.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(measure)
