"""`toolguard watch`: a training run by step, from its checkpoints or its rollouts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..checkpoints import held_out
from ..errors import CaseError, RunError, ToolguardError
from ..evaluation.cases import read_cases
from ..evaluation.load import Source, load_model, load_tokenizer
from ..evaluation.watch import (
    Asked,
    Watched,
    has_checkpoints,
    moved,
    rollouts_of,
    watch_checkpoints,
    watch_rollouts,
)
from ..formats.wire_format import WireFormat
from ..parsing.turn import STATES
from ..rows.classify import Classes, Group, fault_totals
from ..rows.layout import Layout, read_tools
from .drawing import drawing
from .groups import LEGEND, faults_table, state_bars
from .progress import file_bars, progress_bars
from .questions import Base, Batch, MaxNewTokens, Seed, Temperature
from .repair import CORES, AsJson, Column, Every, Format, Tools, ToolsetColumn, Workers

_HEADINGS = ("healthy\ncall", "healthy\nreply", "pol-\nluted", "col-\nlapsed")
SHOWN = 5
"""Columns of control mass in the table: those that moved most."""


def watch(
    run: Annotated[
        list[Path],
        typer.Argument(help="A folder with checkpoints or rollout files, or rollout files."),
    ],
    profile: Annotated[
        Path | None,
        typer.Option(help="Of the healthy model; the first checkpoint's is recorded unless given."),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(help="JSONL with tools, messages, calls; the bundled cases unless given."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Cases that each checkpoint is asked; else all.")
    ] = None,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 160,
    batch: Batch = 32,
    temperature: Temperature = 0.0,
    run_length: Annotated[
        float, typer.Option(min=1, help="Healthy turns between false alarms, on average.")
    ] = 10_000,
    by: Annotated[
        str | None, typer.Option(help="Rollouts: the column of the step; else a file is a step.")
    ] = None,
    format: Format = "auto",
    base: Base = None,
    column: Column = None,
    tools: Tools = None,
    toolset_column: ToolsetColumn = "toolset",
    every: Every = False,
    workers: Workers = CORES,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The journal that keeps what is known; toolguard-watch.jsonl in the run's folder "
            "unless given."
        ),
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw the steps into this file (.svg, .png, .pdf).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch a training run: states, faults, control mass and drift by step.

    Checkpoints answer cases unguarded. The same command again costs only what is new.
    """
    errors = Console(stderr=True)
    try:
        draw = None if chart is None else drawing(chart).draw_steps
        if len(run) == 1 and has_checkpoints(run[0], out):
            given = held_out() if cases is None else read_cases(cases)
            if not given:
                raise CaseError(f"{cases} has no cases: write one JSON object a line")
            named = None if format == "auto" else WireFormat.load(format)
            asked = Asked(given, limit, seed, max_new_tokens, temperature, run_length, batch, named)
            with progress_bars(errors) as bars:
                whole = bars.add_task("loading", total=None)

                def advance(doing: str, done: int, total: int) -> None:
                    bars.update(whole, description=doing, completed=done, total=total)

                watched = watch_checkpoints(
                    run[0],
                    asked,
                    lambda folder: load_model(Source.of(str(folder), base)),
                    lambda folder: load_tokenizer(Source.of(str(folder), base)),
                    profile=profile,
                    journal=out,
                    watch=advance,
                )
        else:
            if profile is not None:
                raise RunError("--profile is for checkpoints: rollouts have no logits")
            offered = read_tools(tools) if tools else None
            layout = Layout(column, every, offered, toolset_column, format)
            files = _rollouts(run)
            with file_bars(errors) as bars:
                size = sum(path.stat().st_size for path in files if path.is_file())
                whole = bars.add_task("classify", total=size, rows=0)

                def count(classes: Classes) -> None:
                    for line in classes.errors:
                        errors.print(line, markup=False, highlight=False, soft_wrap=True)
                    rows = bars.tasks[whole].fields["rows"] + classes.rows
                    bars.update(whole, completed=classes.position, rows=rows)

                watched = watch_rollouts(
                    files, layout, by=by, journal=out, workers=workers, watch=count
                )
        if draw is not None:
            draw(watched, chart)
    except (ToolguardError, OSError, ValueError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps(watched.to_json(), ensure_ascii=False))
        return
    _show(watched)


def _rollouts(run: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in run:
        if not path.exists():
            raise RunError(f"cannot read {path}: no such file or folder")
        files += rollouts_of(path) if path.is_dir() else [path]
    if not files:
        raise RunError(
            f"nothing to watch in {run[0]}: no checkpoints (folders with a config.json or an "
            "adapter_config.json, and the step in their name) and no rollouts (.jsonl, .parquet)"
        )
    return files


def _show(watched: Watched) -> None:
    console = Console()
    groups = {
        step: Group(made.turns, Counter(made.states), Counter(made.faults))
        for step, made in watched.steps.items()
    }
    console.print(_steps(watched))
    console.print(state_bars(groups))
    console.print(*LEGEND)
    if any(made.mass.tokens for made in watched.steps.values()):
        console.print(_masses(watched))
    faults = fault_totals(groups)
    if faults:
        console.print(faults_table(groups, faults, "step"))
    for step, made in watched.steps.items():
        for alarm in made.alarms[:1]:
            if step == watched.alarm_step:
                console.print(f"[red]step {step}:[/] {escape(str(alarm))}", highlight=False)
    if watched.blind:
        console.print(f"[yellow]No drift detector:[/] {escape(watched.blind)}", highlight=False)
    elif watched.recorded:
        console.print(
            f"Drift is told by a profile of {escape(watched.recorded)}, in "
            f"{escape(str(watched.profile))}",
            highlight=False,
        )
    if watched.errors:
        console.print(f"[red]{watched.errors:,} rows without a turn or tools[/]")


def _steps(watched: Watched) -> Table:
    known = any(made.exact_match is not None for made in watched.steps.values())
    told = any(made.statistic is not None for made in watched.steps.values())
    each = next(iter(watched.steps.values())).turns if watched.steps else 0
    title = f"Unguarded turns by step, {each:,} each" if known else "Turns by step"
    table = Table(title=title)
    table.box, table.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    headings = ["step", *_HEADINGS]
    headings += ["valid\ncalls", "exact", "no call\nkept"] if known else ["turns"]
    headings += ["drift"] if told else []
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for step, made in watched.steps.items():
        cells = [escape(str(step)), *(f"{made.share(state):.1%}" for state in STATES)]
        if known:
            rates = (made.schema_valid, made.exact_match, made.no_call_kept)
            cells += ["" if rate is None else f"{rate:.1%}" for rate in rates]
        else:
            cells.append(f"{made.turns:,}")
        if told:
            cells.append("" if made.statistic is None else f"{made.statistic:,.0f}")
        mark = "[red]alarm[/]" if step == watched.alarm_step else ""
        table.add_row(*cells, mark)
    return table


def _masses(watched: Watched) -> Table:
    """The control mass that moved most."""
    made = [*watched.steps.values()]
    pairs = moved(made, SHOWN)
    table = Table(title="Mean control mass that moved most, by token and position")
    table.box = box.SIMPLE_HEAD
    table.add_column("step", justify="right")
    for position, token in pairs:
        table.add_column(f"{escape(token)}\n{position}", justify="right", no_wrap=True)
    for step, one in watched.steps.items():
        masses = (one.mass.mean(token, position) for position, token in pairs)
        table.add_row(str(step), *(f"{mass:.4f}" for mass in masses))
    return table
