"""`toolguard classify`: what the turns in files of rows are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import ToolguardError
from ..rows.classify import Classes, classify_files, fault_totals
from ..rows.layout import Layout, read_tools
from .drawing import drawing
from .groups import LEGEND, faults_table, state_bars, states_table
from .progress import file_bars
from .repair import (
    CORES,
    OPENINGS,
    AsJson,
    Column,
    Every,
    Files,
    Format,
    Opening,
    PromptColumn,
    Tools,
    ToolsetColumn,
    Workers,
)


def classify(
    files: Files,
    format: Format = "auto",
    column: Column = None,
    tools: Tools = None,
    toolset_column: ToolsetColumn = "toolset",
    every: Every = False,
    opened: Opening = "auto",
    prompt_column: PromptColumn = "prompt",
    by: Annotated[
        str | None, typer.Option(help="A column to group by, e.g. checkpoint or step.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw the groups into this file (.svg, .png, .pdf).")
    ] = None,
    workers: Workers = CORES,
    as_json: AsJson = False,
) -> None:
    """Count the states and faults of the turns in JSONL or Parquet rows."""
    errors = Console(stderr=True)
    try:
        draw = None if chart is None else drawing(chart).draw
        offered = read_tools(tools) if tools else None
        layout = Layout(
            column, every, offered, toolset_column, format, OPENINGS[opened], prompt_column
        )
        with file_bars(errors) as bars:
            size = sum(path.stat().st_size for path in files if path.is_file())
            whole = bars.add_task("classify", total=size, rows=0)

            def watch(classes: Classes) -> None:
                for line in classes.errors:
                    errors.print(line, markup=False, highlight=False, soft_wrap=True)
                rows = bars.tasks[whole].fields["rows"] + classes.rows
                bars.update(whole, completed=classes.position, rows=rows)

            found = classify_files(files, layout, by=by, workers=workers, watch=watch)
        if draw is not None and chart is not None:
            draw(found.in_order(), by, chart)
    except (ToolguardError, OSError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    groups = found.in_order()
    if as_json:
        listed = [{"by": value, **group.to_json()} for value, group in groups.items()]
        print(json.dumps({"rows": found.rows, "errors": found.failed, "groups": listed}))
        return
    console = Console()
    console.print(states_table(groups, by))
    console.print(state_bars(groups))
    console.print(*LEGEND)
    faults = fault_totals(groups)
    if faults:
        console.print(faults_table(groups, faults, by))
    failed = f", [red]{found.failed:,} without a turn or tools[/]" if found.failed else ""
    console.print(f"{found.rows:,} rows{failed}")
