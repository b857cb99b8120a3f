"""Which wire format real chat templates are recognised as, and why others are not.

`python -m benchmarks.templates FOLDER [--json]` takes every `.jinja` file below a folder, and every
`.json` file with a `chat_template` (`tokenizer_config.json`), puts it on the bundled tokenizer, and
prints the format or the reason of the refusal, what ends a turn, and what the prompt has opened.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from toolguard.decoding.guard import end_texts
from toolguard.grammar.request import reasoning_after
from toolguard.parsing.chat_template import Rendering, renderings


def main(folder: Path, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    found = templates(folder)
    rows = {name: row(tokenizer, template) for name, template in found.items()}
    render = [each for each in rows.values() if each["renders_calls"]]
    recognised = [each for each in render if each["format"]]
    if as_json:
        counts = {"templates": len(rows), "render": len(render), "recognised": len(recognised)}
        print(json.dumps({**counts, "rows": rows}, ensure_ascii=False))
        return
    title = f"{len(recognised)} recognised of the {len(render)} that render calls, of {len(rows)}"
    table = Table(title=title)
    for heading in ("template", "format, or why none", "turn ends", "reasoning", "ms"):
        table.add_column(heading, overflow="fold")
    for name, each in rows.items():
        cells = (each["format"] or each["refusal"], " ".join(each["ends"]), each["reasoning"])
        table.add_row(escape(name), *map(escape, cells), str(each["ms"]))
    Console().print(table)


def templates(folder: Path) -> dict[str, str]:
    """The chat templates below a folder, by their path in it."""
    found = {}
    for path in sorted([*folder.rglob("*.jinja"), *folder.rglob("*.json")]):
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            content = json.loads(text)
            text = content.get("chat_template") if isinstance(content, dict) else None
        if isinstance(text, str):
            found[str(path.relative_to(folder))] = text
    return found


def row(tokenizer: PreTrainedTokenizerBase, template: str) -> dict[str, Any]:
    """What is found out about a template."""
    tokenizer.chat_template = template
    started = time.perf_counter()
    refusal, name, ends, reasoning = "", "", [], ""
    try:
        wire_format = toolguard.recognise(tokenizer)
    except toolguard.FormatError as error:
        refusal = str(error)
    ms = round(1000 * (time.perf_counter() - started))
    made = [it for _, it in renderings(tokenizer) if isinstance(it, Rendering) and it.shows_calls]
    if not refusal:
        name = wire_format.name
        ends = end_texts(wire_format, tokenizer)
        reasoning = reasoning_after(made[0].prompt, wire_format)
    return {
        "format": name,
        "refusal": refusal,
        "renders_calls": bool(made),
        "ends": ends,
        "reasoning": reasoning,
        "ms": ms,
    }


if __name__ == "__main__":
    typer.run(main)
