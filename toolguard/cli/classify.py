"""`toolguard classify`: what the turns in files of rows are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..errors import RowError, ToolguardError
from ..parsing.turn import STATES
from ..rows.classify import Classes, Group, classify_files, fault_totals
from ..rows.layout import Layout, read_tools
from .progress import file_bars
from .repair import CORES, AsJson, Column, Every, Files, Format, Tools, ToolsetColumn, Workers

WIDTH = 40
"""The longest bar, in characters."""
# told apart without colours, too
_INK = tuple(
    zip(
        STATES,
        (("█", "green"), ("▓", "cyan"), ("▒", "yellow"), ("░", "red")),
        strict=True,
    )
)


def classify(
    files: Files,
    format: Format = "auto",
    column: Column = None,
    tools: Tools = None,
    toolset_column: ToolsetColumn = "toolset",
    every: Every = False,
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
        draw = None if chart is None else _drawing(chart)
        layout = Layout(column, every, read_tools(tools) if tools else None, toolset_column, format)
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
    console.print(_states(groups, by))
    console.print(_bars(groups))
    console.print(*(Text(f" {glyph} {state}", style) for state, (glyph, style) in _INK))
    faults = fault_totals(groups)
    if faults:
        console.print(_faults(groups, faults, by))
    failed = f", [red]{found.failed:,} without a turn or tools[/]" if found.failed else ""
    console.print(f"{found.rows:,} rows{failed}")


def _drawing(chart: Path) -> Callable[[Mapping[Any, Group], str | None, Path], None]:
    """The function that draws; what it lacks is said before hours of reading."""
    try:
        from .chart import KINDS, draw
    except ImportError as error:
        raise RowError("--chart needs matplotlib: pip install 'toolguard[chart]'") from error
    if chart.suffix not in KINDS or not chart.parent.is_dir():
        raise RowError(f"cannot draw {chart}: name a file in a folder, {' or '.join(KINDS)}")
    return draw


def _states(groups: Mapping[Any, Group], by: str | None) -> Table:
    table = Table(title="Turns by state", box=box.SIMPLE_HEAD)
    table.add_column(escape(by or ""), overflow="fold")
    for heading in ("turns", *STATES):
        table.add_column(heading.replace("_", "\n"), justify="right", no_wrap=True)
    for value, group in groups.items():
        shares = (f"{group.states[state] / group.turns:.1%}" for state in STATES)
        table.add_row(_name(value), f"{group.turns:,}", *shares)
    return table


def _bars(groups: Mapping[Any, Group]) -> Table:
    """The states as one bar a group, all of the same length."""
    chart = Table(box=None, show_header=False)
    chart.add_column(overflow="fold")
    chart.add_column(no_wrap=True)
    for value, group in groups.items():
        bar = Text()
        ends = 0
        for state, (glyph, style) in _INK:
            start, ends = ends, ends + group.states[state]
            # the parts' ends are rounded, not their lengths: these add up
            size = round(WIDTH * ends / group.turns) - round(WIDTH * start / group.turns)
            bar.append(glyph * size, style)
        chart.add_row(_name(value), bar)
    return chart


def _faults(groups: Mapping[Any, Group], faults: Counter[str], by: str | None) -> Table:
    table = Table(title="Turns with a fault, by its kind", box=box.SIMPLE_HEAD)
    table.add_column("fault", no_wrap=True)
    table.add_column(escape(by or ""), overflow="fold")
    table.add_column("turns", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for kind, _ in faults.most_common():
        label = kind
        for value, group in groups.items():
            count = group.faults[kind]
            if count:
                share = count / group.turns
                bar = Text("█" * max(1, round(WIDTH / 2 * share)), "red")
                table.add_row(label, _name(value), f"{count:,}", f"{share:.1%}", bar)
                label = ""
        table.add_section()
    return table


def _name(value: Any) -> str:
    return "all" if value is None else escape(str(value))
