"""`toolguard profile`: records the control mass of a healthy model."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..checkpoints import held_out
from ..errors import CaseError, ProfileError, ToolguardError
from ..evaluation.cases import read_cases
from ..evaluation.figures import record_profile
from ..evaluation.load import Source, load_model, load_tokenizer
from ..formats.wire_format import WireFormat
from ..parsing.recognise import recognise
from ..parsing.turn import STATES, Turn
from ..policy.drift import Drift
from ..policy.profile import QUANTILES, Profile
from .progress import progress_bars
from .questions import Base, Batch, Format, MaxNewTokens, Temperature
from .repair import AsJson


def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder or hub name, a LoRA adapter's folder, a GGUF file, or a bundled "
            "checkpoint."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the profile.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="JSONL with tools, messages, calls; the bundled cases unless given."),
    ] = None,
    max_new_tokens: MaxNewTokens = 160,
    batch: Batch = 32,
    temperature: Temperature = 0.0,
    seed: Annotated[int, typer.Option(help="Seeds the sampling.")] = 0,
    format: Format = None,
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Record where a healthy model has how much control mass, for spikes and drift to be told."""
    errors = Console(stderr=True)
    try:
        source = Source.of(model, base)
        cases = held_out() if prompts is None else read_cases(prompts)
        if not cases:
            raise CaseError(f"{prompts} has no cases: write one JSON object a line")
        if not os.access(output if output.exists() else output.parent, os.W_OK) or output.is_dir():
            raise ProfileError(f"cannot write the profile {output}: no such folder, or no rights")
        tokenizer = load_tokenizer(source)
        wire_format = WireFormat.load(format) if format else recognise(tokenizer)
        loaded = load_model(source)
        states: Counter[str] = Counter()
        with progress_bars(errors) as bars:
            whole = bars.add_task(wire_format.name, total=len(cases))

            def watch(turn: Turn) -> None:
                states[turn.state] += 1
                bars.advance(whole)

            recorded = record_profile(
                loaded,
                tokenizer,
                cases,
                watch=watch,
                wire_format=wire_format,
                batch=batch,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
            )
        recorded.save(output)
    except (ToolguardError, OSError, ValueError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(2) from error
    content = recorded.to_json()
    decisions = [content["decisions"]] if "decisions" in content else []
    for row in (*content["masses"], *content["signs"], *decisions):
        del row["sketch"]
    content["states"] = {state: round(states[state] / len(cases), 4) for state in STATES}
    if as_json:
        print(json.dumps(content, ensure_ascii=False))
        return
    console = Console()
    console.print(_table(recorded, content["masses"]))
    shares = ", ".join(f"{share:.1%} {state}" for state, share in content["states"].items())
    console.print(f"{len(cases)} turns ({shares}), wire format {wire_format.name}, in {output}")
    try:
        Drift(recorded)
    except ProfileError as error:
        console.print(f"[yellow]Too little to detect drift:[/] {escape(str(error))}")


def _table(recorded: Profile, masses: list[dict[str, Any]]) -> Table:
    table = Table(title="Control mass of the healthy model: shares of the steps stay below")
    table.add_column("control token")
    table.add_column("region, position")
    for heading in ("steps", "reached\nthe gate", *(f"{q:.1%}" for q in QUANTILES), "largest"):
        table.add_column(heading, justify="right")
    for row in sorted(masses, key=lambda row: (row["control"], row["position"])):
        sizes = [*row["quantiles"].values(), row["largest"]]
        table.add_row(
            escape(row["control"]),
            f"{row['region']}, {row['position']}",
            f"{recorded.count(row['region'], row['position']):,}",
            f"{row['above_zero']:,}",
            *(f"{size:.4f}" for size in sizes),
        )
    return table
