"""`toolguard sweep`: the same cases in every wire format, and in other words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..errors import ToolguardError
from .drawing import drawing
from .questions import (
    ApiKey,
    Base,
    Batch,
    Cases,
    Format,
    Limit,
    MaxNewTokens,
    Model,
    Seed,
    Temperature,
    questions,
    run_watched,
)
from .repair import AsJson

METRICS = ("healthy", "schema_valid", "exact_match", "no_call_kept")


def sweep(
    model: Model,
    formats: Annotated[
        list[str] | None,
        typer.Option("--in", help="A format besides the model's own; all unless given."),
    ] = None,
    cases: Cases = None,
    fail_under: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Exit with 1 where less of the calls is exact, unguarded, in the model's own "
            "format or in one named by --in.",
        ),
    ] = 0.0,
    out: Annotated[
        Path, typer.Option(help="Folder of sweep.json and what is resumed from.")
    ] = Path("report"),
    chart: Annotated[
        Path | None, typer.Option(help="Draw the heat map into this file (.svg, .png, .pdf).")
    ] = None,
    limit: Limit = 32,
    seed: Seed = 0,
    temperature: Temperature = 0.0,
    max_new_tokens: MaxNewTokens = 160,
    batch: Batch = 32,
    wire_format: Format = None,
    base: Base = None,
    api_key: ApiKey = "none",
    as_json: AsJson = False,
) -> None:
    """Ask a model the same in every wire format and in other words, to find hidden regressions."""
    errors = Console(stderr=True)
    try:
        draw = None if chart is None else drawing(chart).heat_map
        asked = questions(
            model, cases, limit, seed, temperature, max_new_tokens, batch, wire_format, api_key,
            base, errors,
        )  # fmt: skip
        from ..diagnosis.sweep import sweep as sweep_over
        from ..diagnosis.sweep import sweep_parts

        subject = asked.subject(model)
        total = sum(len(part.cases) for part in sweep_parts(subject, asked.cases, formats))
        journal = asked.journal(out / "sweep.jsonl")
        with run_watched(errors, total) as watch:
            rows = sweep_over(subject, asked.cases, formats=formats, journal=journal, watch=watch)
        content = {**asked.about(), "wire_format": subject.wire_format.name, "sweep": rows}
        (out / "sweep.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
        names = [f"{row['format']}, {row['variation']}, {row['mode']}" for row in rows]
        cells = [[rate(row, metric) for metric in METRICS] for row in rows]
        if draw is not None and chart is not None:
            draw(names, METRICS, cells, chart)
    except (ToolguardError, OSError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps(content, ensure_ascii=False))
    else:
        Console().print(_table(rows))
    below = [row for row in rows if _gated(row, subject.wire_format.name, formats, fail_under)]
    for row in below:
        share = row["exact_match"]["share"]
        errors.print(
            f"[red]below {fail_under:.1%}:[/] {row['format']}, {row['variation']}: {share:.1%}"
        )
    if below:
        raise typer.Exit(1)


def rate(row: dict[str, Any], metric: str) -> float | None:
    """One cell; None where no turn counts."""
    if metric == "healthy":
        return float(row["states"]["healthy_call"]["share"]) + float(
            row["states"]["healthy_response"]["share"]
        )
    found = row[metric]
    return float(found["share"]) if found["of"] else None


def _gated(row: dict[str, Any], own: str, formats: list[str] | None, bound: float) -> bool:
    named = row["format"] == own or row["format"] in (formats or ())
    return row["mode"] == "unguarded" and named and row["exact_match"]["share"] < bound


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="The same cases, asked otherwise", box=box.SIMPLE_HEAD)
    for heading in ("format", "variation", "mode"):
        table.add_column(heading, no_wrap=heading != "variation")
    for metric in METRICS:
        table.add_column(metric.replace("_", "\n"), justify="right", no_wrap=True)
    before = ""
    for row in rows:
        if before and row["format"] != before:
            table.add_section()
        table.add_row(
            "" if row["format"] == before else row["format"],
            row["variation"],
            row["mode"],
            *(_cell(rate(row, metric)) for metric in METRICS),
        )
        before = row["format"]
    return table


def _cell(share: float | None) -> Text:
    if share is None:
        return Text("-")
    style = "green" if share >= 0.9 else "yellow" if share >= 0.5 else "red"
    return Text(f"{share:.1%}", style)
