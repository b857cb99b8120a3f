"""`toolguard formats`: the wire formats, and which of them a model writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
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
    if model is not None:
        try:
            found = dict([_recognised(model)])
        except (ToolguardError, OSError, ValueError) as error:
            Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}")
            raise typer.Exit(2) from error
    else:
        known = map(WireFormat.load, format_names(variants=True))
        found = {wire_format: wire_format.ends for wire_format in known}
    if as_json:
        listed = {it.name: _as_json(it, ends) for it, ends in found.items()}
        print(json.dumps({"formats": listed}, ensure_ascii=False))
    elif model is None:
        Console().print(_table(found))
    else:
        for wire_format, ends in found.items():
            _show(wire_format, ends)


def _recognised(model: Path) -> tuple[WireFormat, Sequence[str]]:
    """The format of a model, and what ends its turns."""
    from transformers import AutoTokenizer

    from ..decoding.guard import end_texts
    from ..parsing.recognise import recognise

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    wire_format = recognise(tokenizer)
    return wire_format, end_texts(wire_format, tokenizer)


def _example(wire_format: WireFormat) -> str:
    try:
        return render(wire_format, _CALLS)
    except ToolguardError:
        return render(wire_format, _CALLS[:1])


def _as_json(wire_format: WireFormat, ends: Sequence[str]) -> dict[str, Any]:
    return {
        "about": dict(wire_format.about),
        "controls": list(wire_format.controls),
        "ends": list(ends),
        "example": _example(wire_format),
    }


def _table(found: Iterable[WireFormat]) -> Table:
    table = Table(title="Wire formats")
    for heading in ("format", "families", "arguments", "call ids", "turn end"):
        table.add_column(heading, overflow="fold")
    for it in found:
        fields = ("families", "arguments", "call ids", "turn end")
        table.add_row(it.name, *(escape(it.about.get(field, "")) for field in fields))
    return table


def _show(wire_format: WireFormat, ends: Sequence[str]) -> None:
    console = Console()
    console.print(f"[bold]{wire_format.name}[/]: {escape(wire_format.about[wire_format.name])}")
    told = " or ".join(end for end in ends if end not in wire_format.ends)
    for field, says in wire_format.about.items():
        if field not in (wire_format.name, "example"):
            more = f"; {told} in this chat template" if told and field == "turn end" else ""
            console.print(f"  {field:<10} {escape(says + more)}")
    console.print()
    text = Text(_example(wire_format))
    for control in wire_format.controls:
        for place in re.finditer(re.escape(control), text.plain):
            text.stylize("bold reverse", *place.span())
    console.print(text)
