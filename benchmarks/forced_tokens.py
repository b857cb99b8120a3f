"""Forward passes and wall time on the healthy checkpoint, unguarded and guarded, side by side.

    python -m benchmarks.forced_tokens [--prompts 128] [--repeats 5] [--json]

The guard feeds forced tokens together with the sampled one, so it needs fewer passes for the same
tokens; masks and bookkeeping cost time of their own. Modes alternate within each repeat; the ratio
of a repeat is guarded / unguarded, and medians with quartiles are printed.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard

BATCHES = (1, 32)


def measure(
    prompts: int = 128,
    repeats: int = 5,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    path = toolguard.checkpoint("healthy")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    cases = toolguard.held_out()[:prompts]

    def run(policy: str, batch: int) -> tuple[float, list[toolguard.Turn]]:
        started = time.perf_counter()
        turns = list(toolguard.answer(model, tokenizer, cases, batch=batch, policy=policy))
        return time.perf_counter() - started, turns

    results = {}
    for batch in BATCHES:
        run("enforce", batch)  # compiles and caches the guards
        ratios = []
        for _ in range(repeats):
            plain, before = run("observe", batch)
            guarded, after = run("enforce", batch)
            ratios.append(guarded / plain)
        passes = [sum(t.report.forward_passes for t in turns) for turns in (before, after)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        results[f"batch {batch}"] = {
            "same_ids": sum(b.ids == a.ids for b, a in zip(before, after, strict=True)),
            "turns": len(after),
            "tokens": sum(len(turn.ids) for turn in after),
            "passes_unguarded": passes[0],
            "passes_guarded": passes[1],
            "time_ratio": {"median": middle, "quartiles": [low, high]},
        }
    if as_json:
        print(json.dumps(results))
        return
    table = Table(title="healthy, guarded beside unguarded")
    for heading in ("", "same ids", "tokens", "passes", "guarded", "time ratio (quartiles)"):
        table.add_column(heading, justify="right")
    for name, row in results.items():
        ratio = row["time_ratio"]
        table.add_row(
            name,
            f"{row['same_ids']} / {row['turns']}",
            f"{row['tokens']:,}",
            f"{row['passes_unguarded']:,}",
            f"{row['passes_guarded']:,}",
            f"{ratio['median']:.2f} ({ratio['quartiles'][0]:.2f} to {ratio['quartiles'][1]:.2f})",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(measure)
