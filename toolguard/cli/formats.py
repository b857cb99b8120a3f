"""`toolguard formats`: the wire formats, and which of them a model writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..errors import ToolguardError
from ..formats.render import render
from ..formats.wire_format import WireFormat, format_names

_CALLS = (
    {"name": "get_weather", "arguments": {"city": "Bern", "days": 3, "hourly": True}},
    {"name": "get_time", "arguments": {"zone": "Europe/Zurich"}},
)


def formats(
    model: Annotated[
        Path | None,
        typer.Option(help="A model's folder: recognise the format of its chat template."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, nothing else.")
    ] = False,
) -> None:
    """List the wire formats, or recognise that of a model and show what a call looks like."""
    names = format_names(variants=True)
    if model is not None:
        try:
            names = (_recognised(model),)
        except (ToolguardError, OSError, ValueError) as error:
            Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}")
            raise typer.Exit(2) from error
    found = [WireFormat.load(name) for name in names]
    if as_json:
        print(json.dumps({"formats": {it.name: _as_json(it) for it in found}}, ensure_ascii=False))
    elif model is None:
        Console().print(_table(found))
    else:
        _show(found[0])


def _recognised(model: Path) -> str:
    from transformers import AutoTokenizer

    from ..parsing.recognise import recognise

    return recognise(AutoTokenizer.from_pretrained(str(model))).name


def _example(wire_format: WireFormat) -> str:
    try:
        return render(wire_format, _CALLS)
    except ToolguardError:
        return render(wire_format, _CALLS[:1])


def _as_json(wire_format: WireFormat) -> dict[str, Any]:
    return {
        "about": dict(wire_format.about),
        "controls": list(wire_format.controls),
        "ends": list(wire_format.ends),
        "example": _example(wire_format),
    }


def _table(found: list[WireFormat]) -> Table:
    table = Table(title="Wire formats")
    for heading in ("format", "families", "arguments", "call ids", "turn end"):
        table.add_column(heading, overflow="fold")
    for it in found:
        fields = ("families", "arguments", "call ids", "turn end")
        table.add_row(it.name, *(escape(it.about.get(field, "")) for field in fields))
    return table


def _show(wire_format: WireFormat) -> None:
    console = Console()
    console.print(f"[bold]{wire_format.name}[/]: {escape(wire_format.about[wire_format.name])}")
    for field, says in wire_format.about.items():
        if field not in (wire_format.name, "example"):
            console.print(f"  {field:<10} {escape(says)}")
    console.print()
    text = Text(_example(wire_format))
    for control in wire_format.controls:
        for place in re.finditer(re.escape(control), text.plain):
            text.stylize("bold reverse", *place.span())
    console.print(text)
