"""What grows with what, in every format: compile time with tools, a token's cost with an argument.

    python -m benchmarks.growth [--format hermes] ... [--part compile] [--repeats 3] [--json]

- compile: from tools to a guard, for 1, 14 and 117 tools of the shapes that servers list
  (`server_tools.json`; `--tools FILE` takes others, as `tools/list` gives them), beside a bare
  llguidance that is given the same schemas as plain JSON; both on Qwen3's tokenizer. No two
  repeats have the same names, so that nothing is in a cache but what all requests share.
- argument: one call with an argument of 2,000, 8,000 and 32,000 tokens of code: accepting a token
  (with its place in the turn), feeding it to a `TurnParser`, and repairing the turn where its last
  ten characters are cut off. Microseconds a token: what is linear stays as it is.

Times are of one core (`time.thread_time`): milliseconds of a compile, medians of the repeats.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from transformers import AutoTokenizer

import toolguard
from toolguard import Guard, Toolset, TurnParser, WireFormat, format_names, render
from toolguard.grammar.engine import compile_grammar

from .formats import encode
from .plain_grammars import plain_grammar
from .real_data import DATA
from .replay_scripts import real_tokenizer
from .tables import table

LISTED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "server_tools.json").read_text("utf-8")
)
"""Tools of the shapes that servers of the Model Context Protocol list."""
TOOLS = (1, 14, 117)
TOKENS = (2_000, 8_000, 32_000)
CODE = 'if x < 3:\n    s = "a\\\\b \\"q\\" <b> \'z\'"  # `é`\n'
EDIT: dict[str, Any] = {
    "name": "edit",
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
}
Rows = Iterator[dict[str, Any]]


def listed(
    count: int, mark: str = "", tools: Sequence[Mapping[str, Any]] = LISTED
) -> list[dict[str, Any]]:
    """So many tools, the same ones again under other names where there are no more."""
    rounds = (divmod(place, len(tools)) for place in range(count))
    return [{**tools[at], "name": f"{tools[at]['name']}{mark}_{turn}"} for turn, at in rounds]


def edit(wire_format: WireFormat, size: int) -> str:
    """A turn that calls `EDIT` with so many characters of code."""
    arguments = {"path": "a.py", "content": CODE * (size // len(CODE))}
    return render(wire_format, [{"name": "edit", "arguments": arguments}])


def seconds(work: Callable[..., object], *arguments: Any) -> float:
    started = time.thread_time()
    work(*arguments)
    return time.thread_time() - started


def accept(guard: Guard, ids: Sequence[int]) -> None:
    """Takes a turn token by token, as the policies do: with where it stands before each."""
    state = guard.start(2 * len(ids) + 100)
    for token in ids:
        assert state.position
        assert state.accept(token)


def feed(guard: Guard, ids: Sequence[int]) -> None:
    parser = TurnParser(guard.format, guard.toolset, spelling=guard.spelling)
    for token in ids:
        parser.feed([token])


def compiles(name: str, tokenizer: Any, repeats: int, tools: Sequence[Mapping[str, Any]]) -> Rows:
    Guard.compile(name, [EDIT], tokenizer)  # what is made once for a format, or a tokenizer
    vocabulary = Guard.compile("hermes", [EDIT], tokenizer).vocabulary
    row: dict[str, Any] = {"format": name}
    for count in TOOLS:
        own, bare = [], []
        for repeat in range(repeats):
            offered = Toolset.of(listed(count, f"_{repeat}", tools))
            plain = plain_grammar("hermes", offered, tokenizer.get_added_vocab())
            own.append(1e3 * seconds(Guard.compile, name, offered, tokenizer))
            bare.append(1e3 * seconds(compile_grammar, vocabulary, plain))
        row[f"{count} tools"] = statistics.median(own)
        row[f"{count}, over bare"] = statistics.median(own) / statistics.median(bare)
    yield row


def arguments(name: str, tokenizer: Any, repeats: int, _: Sequence[Mapping[str, Any]]) -> Rows:
    guard = Guard.compile(name, [EDIT], tokenizer)
    row: dict[str, Any] = {"format": name}
    for count in TOKENS:
        turn = edit(guard.format, count * len(CODE) // len(encode(tokenizer, CODE)))
        ids = encode(tokenizer, turn)
        cut = turn[:-10]
        work: dict[str, tuple[Any, ...]] = {
            "accept": (accept, guard, ids),
            "feed": (feed, guard, ids),
            "repair": (toolguard.repair, cut, guard.toolset, guard.format),
        }
        for what, timed in work.items():
            spent = [seconds(*timed) for _ in range(repeats)]
            row[f"{what}, {count:,}"] = 1e6 * statistics.median(spent) / len(ids)
    yield row


PARTS = {"compile": compiles, "argument": arguments}


def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help="Only these.")] = None,
    parts: Annotated[list[str] | None, typer.Option("--part", help="Only these.")] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    tools: Annotated[Path | None, typer.Option(help="A server's list, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line, as it is done.")] = False,
) -> None:
    bundled = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    tokenizer = real_tokenizer("qwen3") if (DATA / "tokenizers").is_dir() else bundled
    offered = json.loads(tools.read_text("utf-8")) if tools else LISTED
    console = Console(stderr=True)
    for part in parts or PARTS:
        rows: list[dict[str, Any]] = []
        for name in track(formats or format_names(), part, console=console):
            for row in PARTS[part](name, tokenizer, repeats, offered):
                rows.append(row)
                if as_json:
                    print(json.dumps({"part": part, **row}), flush=True)
        if not as_json:
            print(f"{part}\n{table(rows)}\n")


if __name__ == "__main__":
    typer.run(main)
