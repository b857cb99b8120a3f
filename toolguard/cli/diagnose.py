"""`toolguard diagnose`: is the skill gone, or only the format?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from ..errors import RequestError, ToolguardError
from ..parsing.turn import STATES
from .questions import (
    ApiKey,
    Base,
    Batch,
    Cases,
    Format,
    Limit,
    MaxNewTokens,
    Model,
    Questions,
    Seed,
    Temperature,
    questions,
    run_watched,
)
from .repair import AsJson

if TYPE_CHECKING:
    from ..diagnosis.diagnosis import Diagnosis

_COLOURS = {
    "healthy": "green",
    "format damaged, skill intact": "yellow",
    "undetermined": "yellow",
    "skill damaged": "red",
    "both": "red",
}


def diagnose(
    model: Model,
    reference: Annotated[
        str | None, typer.Option(help="The model from before the damage, given like MODEL.")
    ] = None,
    cases: Cases = None,
    profile: Annotated[
        Path | None, typer.Option(help="Control mass of the healthy model, to find spikes by.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of report.html, report.json and what is resumed from.")
    ] = Path("report"),
    limit: Limit = 200,
    seed: Seed = 0,
    temperature: Temperature = 0.0,
    max_new_tokens: MaxNewTokens = 160,
    batch: Batch = 32,
    wire_format: Format = None,
    base: Base = None,
    api_key: ApiKey = "none",
    as_json: AsJson = False,
) -> None:
    """Say whether a checkpoint lost the skill to call tools, or only the format."""
    errors = Console(stderr=True)
    try:
        asked = questions(
            model,
            cases,
            limit,
            seed,
            temperature,
            max_new_tokens,
            batch,
            wire_format,
            api_key,
            base,
            errors,
        )
        found = _diagnose(asked, reference, profile, out, errors)
    except (ToolguardError, OSError) as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return
    _print(found, out)


def _diagnose(
    asked: Questions, reference: str | None, profile: Path | None, out: Path, errors: Console
) -> Diagnosis:
    from ..diagnosis.diagnosis import diagnose, parts
    from ..diagnosis.page import page, require

    require()
    other = asked.subject(reference) if reference is not None else None
    subject = asked.subject(asked.model, other)
    if other is not None and other.wire_format != subject.wire_format:
        raise RequestError(
            f"the reference {reference} writes {other.wire_format.name}, and {asked.model} "
            f"{subject.wire_format.name}: give the model from before the damage"
        )
    known = None if profile is None else asked.profile(profile, subject)
    journal = asked.journal(out / "diagnose.jsonl", reference=asked.fingerprint(reference))
    total = sum(len(part.cases) for part in parts(subject, asked.cases, other))
    with run_watched(errors, total) as watch:
        found = diagnose(
            subject,
            asked.cases,
            reference=other,
            profile=known,
            about=asked.about(reference=reference, profile=profile and str(profile)),
            journal=journal,
            watch=watch,
        )
    content = found.to_json()
    content["sweep"] = _swept(out / "sweep.json", asked.model) or content["sweep"]
    (out / "report.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
    (out / "report.html").write_text(page(content), "utf-8")
    return found


def _swept(path: Path, model: str) -> list[dict[str, Any]]:
    """What `toolguard sweep` found out about the same model, if it wrote to the same folder."""
    if not path.is_file():
        return []
    swept = json.loads(path.read_text("utf-8"))
    return list(swept["sweep"]) if swept["model"] == model else []


def _print(found: Diagnosis, out: Path) -> None:
    console = Console()
    verdict, advice = found.verdict, found.advice
    console.print(Panel(escape(verdict.sentence), border_style=_COLOURS[verdict.name]))
    console.print(_table(found.content["answers"]))
    for reason in verdict.reasons:
        console.print(f"· {escape(reason)}", soft_wrap=True, highlight=False)
    console.print(f"\n[bold]{escape(advice.sentence)}[/]", soft_wrap=True, highlight=False)
    for way in filter(None, (advice.command, advice.code)):
        console.print(f"  {escape(way)}", soft_wrap=True, highlight=False)
    console.print(f"\nThe report: {out / 'report.html'}", soft_wrap=True, highlight=False)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("answered", overflow="fold")
    headings = ("healthy\ncall", "healthy\nreply", "pol-\nluted", "col-\nlapsed")
    for heading in (*headings, "schema-\nvalid", "exact\nmatch", "no call\nkept", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        rates = [row["states"][state] for state in STATES]
        rates += [row["schema_valid"], row["exact_match"], row["no_call_kept"]]
        shares = (f"{rate['share']:.1%}" if rate["of"] else "-" for rate in rates)
        table.add_row(row["name"], *shares, f"{row['tokens']:,}")
    return table
