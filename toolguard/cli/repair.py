"""`toolguard repair`: the turns in files of rows, repaired."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import ToolguardError
from ..parsing.opening import Opened
from ..parsing.turn import STATES
from ..repair.edits import Confidence
from ..rows.layout import Layout, read_tools
from ..rows.repair import Done, Engine, repair_files
from ..rows.tally import Tally
from .progress import file_bars

OPENINGS: dict[str, Opened] = {"true": True, "false": False, "reply": "reply", "auto": "auto"}
CORES = os.cpu_count() or 1

Files = Annotated[
    list[Path], typer.Argument(help="JSONL (also .gz, .xz) or Parquet files of rows.")
]
Format = Annotated[str, typer.Option(help="The wire format's name; auto finds it.")]
Column = Annotated[
    str | None,
    typer.Option(
        help="The column with the turn; unless given, chat `messages`, or `text`, which may stand "
        "beside a prompt in `messages`."
    ),
]
Tools = Annotated[
    Path | None,
    typer.Option(
        help="JSON: a list of tools for all rows, or lists by toolset; else each row's `tools`."
    ),
]
ToolsetColumn = Annotated[str, typer.Option(help="Where a row names its toolset of --tools.")]
Every = Annotated[
    bool, typer.Option("--every", help="Every assistant message of a chat, not only the last.")
]
Opening = Annotated[
    Literal["true", "false", "reply", "auto"],
    typer.Option(
        "--opened",
        help="Whether the prompts had opened the reasoning, or a reply; auto takes it from each "
        "row's prompt, or from the turn.",
    ),
]
PromptColumn = Annotated[
    str, typer.Option(help="Where a row has its prompt, or the end of one, as text.")
]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes, or Ray tasks.", show_default="one per core")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]


def repair(
    files: Files,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    format: Format = "auto",
    column: Column = None,
    tools: Tools = None,
    toolset_column: ToolsetColumn = "toolset",
    every: Every = False,
    opened: Opening = "auto",
    prompt_column: PromptColumn = "prompt",
    workers: Workers = CORES,
    engine: Annotated[
        Engine, typer.Option(help="This machine, or the Ray cluster at RAY_ADDRESS.")
    ] = "local",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over, whatever --out is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Repair the turns of JSONL or Parquet rows. Interrupted, the same command goes on."""
    errors = Console(stderr=True)
    try:
        offered = read_tools(tools) if tools else None
        layout = Layout(
            column, every, offered, toolset_column, format, OPENINGS[opened], prompt_column
        )
        with file_bars(errors) as bars:
            size = sum(path.stat().st_size for path in files if path.is_file())
            whole = bars.add_task(out.name, total=size, rows=0)

            def watch(done: Done) -> None:
                for line in done.errors:
                    errors.print(line, markup=False, highlight=False, soft_wrap=True)
                rows = bars.tasks[whole].fields["rows"] + done.tally.rows
                bars.update(whole, completed=done.position, rows=rows)

            tally = repair_files(
                files,
                out,
                layout,
                workers=workers,
                engine=engine,
                overwrite=overwrite,
                watch=watch,
            )
    except ToolguardError as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps({"out": str(out), **tally.to_json()}))
        return
    console = Console()
    console.print(_faults(tally))
    for when, states in (("before", tally.before), ("after", tally.after)):
        console.print(f"{when:>6}: {', '.join(f'{states[state]:,} {state}' for state in STATES)}")
    passed = f", [red]{tally.errors:,} passed through with an error[/]" if tally.errors else ""
    console.print(f"{tally.rows:,} rows{passed}, in {escape(str(out))}")


def _faults(tally: Tally) -> Table:
    levels = get_args(Confidence)
    table = Table(title="Turns by fault, and by confidence of their repair")
    table.add_column("fault")
    for level in (*levels, "turns"):
        table.add_column(level, justify="right")
    for kind in tally.fault_kinds():
        counts = [tally.faults[kind, level] for level in levels]
        table.add_row(kind, *(f"{count:,}" for count in (*counts, sum(counts))))
    table.add_section()
    counts = [tally.confidence[level] for level in levels]
    table.add_row("all turns", *(f"{count:,}" for count in (*counts, sum(counts))))
    return table
