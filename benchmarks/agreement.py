"""Mask, parser and validator say the same of a turn: random mutations and random logits.

`python -m benchmarks.agreement [--cases CASES.jsonl]` mutates turns of each format by one character
or one token, and counts where the mask admits what does not read as a healthy turn, or refuses what
does; then it decodes turns from random logits under random requests, and counts those that do not
end, parse and validate. The turns are the examples beside the grammar and, where cases are given,
their expected calls. Half of it is done with the bundled tokenizer, which spells most control
tokens, and half where each of them is one id.

`--tools FOLDER` takes calls of real tools instead (see `real_calls`): right ones, and ones changed
in a value, in a spelling, or by a character or a token. `verdicts` says what agrees.
"""

from __future__ import annotations

import json
import random
import string
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from tests.strategies import bare_toolsets
from tests.turns import examples, random_turns
from toolguard import Guard, Tool, Toolset, WireFormat
from toolguard.grammar.request import Reasoning

from .real_calls import changed_value, lists, respelled, right_arguments
from .real_data import expected_calls
from .verdicts import of_definition, verdict

KINDS = ("right", "value", "spelling", "piece")
"""What is made of a right call of a real tool: nothing, another value or member, another spelling
of a number, a character or white space, or one character or token more or less."""
COLUMNS = ("mutations", "legal", "recorded", "difference", "random_turns", "wrong")
ROWS = 10
"""How many random turns are decoded at once, under one request."""
TRIES = 40
"""How many calls are made of a tool until there is one that the format can write."""

CHARACTERS = [
    *string.printable,
    *map(chr, range(32)),
    *"\x7f\x85\xa0\u2028\u3000\u200b\ufeff\u0301\ufffdäßéπЖע中\uff5c😀\U0010ffff",
]


class Seed(NamedTuple):
    """A healthy turn to mutate, the tools that it was offered, and what the prompt had opened."""

    tools: list[dict[str, Any]]
    text: str
    reasoning: Reasoning = "auto"


def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help="Only these.")] = None,
    mutations: Annotated[int, typer.Option(min=0, help="For each format.")] = 10_000,
    random_turns: Annotated[int, typer.Option(min=0, help="For each format.")] = 1000,
    seed: int = 0,
    cases: Annotated[Path | None, typer.Option(help="Cases with `expected_calls`.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth case.")] = 1,
    tools: Annotated[Path | None, typer.Option(help="Lists of real tools, JSON files.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    lines = cases.read_text("utf-8").splitlines() if cases else []
    rows = [json.loads(line) for line in lines[::every]]
    toolsets = list(lists(tools)) if tools else []
    names = formats or list(toolguard.format_names())
    results: dict[str, dict[str, Any]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(names) * (mutations + random_turns))
        for name in names:
            progress.update(bar, description=name)
            counts: Counter[str] = Counter()
            found: list[dict[str, Any]] = []
            tokenizers = [bundled(()), bundled(WireFormat.load(name).controls)]
            draw = random.Random(seed)
            made = (
                of_real_tools(name, tokenizers, toolsets, mutations, draw)
                if toolsets
                else mutated(name, tokenizers, rows, mutations, draw)
            )
            for result in made:
                counts += Counter(key for key in COLUMNS if result.get(key))
                if "difference" in result or "recorded" in result:
                    found.append(result)
                progress.advance(bar)
            for wrong in decoded(name, tokenizers, random_turns, seed):
                counts += Counter(random_turns=1, wrong=bool(wrong))
                if wrong:
                    found.append({"difference": wrong.split()[0], "wrong": wrong})
                progress.advance(bar)
            results[name] = {**{key: counts[key] for key in COLUMNS}, "found": found}
    if as_json:
        print(json.dumps(results))
    else:
        show(results)
    sys.exit(any(result["difference"] or result["wrong"] for result in results.values()))


def show(results: dict[str, dict[str, Any]]) -> None:
    """The counts, and each kind of what is recorded, and of what differs with an example."""
    table = Table(title="What mask, reader and jsonschema call legal")
    for heading in ("format", *COLUMNS):
        table.add_column(heading.replace("_", " "), overflow="fold")
    for name, result in results.items():
        legal = f"{result['legal'] / max(result['mutations'], 1):.0%}"
        table.add_row(name, *(str({**result, "legal": legal}[key]) for key in COLUMNS))
    console = Console()
    console.print(table)
    for name, result in results.items():
        for what in ("recorded", "difference"):
            found = [each for each in result["found"] if what in each]
            for kind, count in Counter(each[what] for each in found).most_common():
                console.print(f"{name}: {what}: {kind}: {count}", markup=False)
                example = next(each for each in found if each[what] == kind)
                if what == "difference":
                    console.print(json.dumps(example, ensure_ascii=False), markup=False)


def bundled(controls: Sequence[str]) -> PreTrainedTokenizerBase:
    """The bundled tokenizer, with these control tokens as special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    tokenizer.add_tokens([*controls], special_tokens=True)
    return tokenizer


def mutated(
    name: str,
    tokenizers: Sequence[PreTrainedTokenizerBase],
    rows: Sequence[dict[str, Any]],
    count: int,
    draw: random.Random,
) -> Iterator[dict[str, Any]]:
    """What each mutation shows; where there are cases, half of them are of the examples."""
    few = [Seed(example["tools"], example["turn"]) for example in examples(name)]
    opener = WireFormat.load(name).reasoning_opener
    few += [
        Seed(tools, text.removeprefix(opener), "open")
        for tools, text, _ in few
        if opener and text.startswith(opener)
    ]
    many = list(rendered(name, rows))
    seeds = [*few * max(1, len(many) // len(few)), *many]
    jobs = [(number, it) for number in range(len(tokenizers)) for it in seeds]
    for index, (number, it) in enumerate(jobs):
        tokenizer = tokenizers[number]
        guard = Guard.compile(name, it.tools, tokenizer, reasoning=it.reasoning)
        for _ in range(count * index // len(jobs), count * (index + 1) // len(jobs)):
            result = verdict(guard, tokenizer, mutation(guard, tokenizer, it.text, draw))
            yield {"mutations": 1, **result, "tokenizer": number, "seed": it._asdict()}


def of_real_tools(
    name: str,
    tokenizers: Sequence[PreTrainedTokenizerBase],
    toolsets: Sequence[Toolset],
    count: int,
    draw: random.Random,
) -> Iterator[dict[str, Any]]:
    """What calls of real tools show: right ones, and ones changed in one way or another."""
    jobs = [(toolset, tool) for toolset in toolsets for tool in toolset]
    for index, (toolset, tool) in enumerate(jobs):
        for number in range(count * index // len(jobs), count * (index + 1) // len(jobs)):
            tokenizer = tokenizers[number % len(tokenizers)]
            guard = Guard.compile(name, toolset, tokenizer)
            kind = KINDS[number % len(KINDS)]
            try:
                arguments, text = written(guard, tool, kind, draw)
            except LookupError as error:
                yield {"mutations": 1, "difference": "no call", "tool": str(error)}
                continue
            if kind == "spelling":
                text = respelled(text, draw)
            ids = [*encoded(tokenizer, text), guard.vocabulary.end_ids[0]]
            if kind == "piece":
                ids = mutation(guard, tokenizer, text, draw)
            meant = arguments if kind in ("right", "value") else None
            result = verdict(guard, tokenizer, ids, meant)
            if kind == "right" and not result["legal"]:
                result.setdefault("difference", "a right call is refused")
            if meant is not None:
                result = of_definition(tool, meant) | result
            yield {"mutations": 1, "tool": tool.name, "kind": kind, **result}


def written(guard: Guard, tool: Tool, kind: str, draw: random.Random) -> tuple[dict[str, Any], str]:
    """Arguments of a tool, right ones or with another value, that the format can write."""
    for _ in range(TRIES):
        arguments = right_arguments(tool, draw)
        if arguments is None:
            break
        if kind == "value":
            arguments = changed_value(arguments, tool, draw)
        call = {"name": tool.name, "arguments": arguments}
        with suppress(toolguard.FormatError):
            return arguments, toolguard.render(guard.format, [call])
    raise LookupError(f"{tool.name}: no call is found, or none that {guard.format.name} can write")


def rendered(name: str, rows: Sequence[dict[str, Any]]) -> Iterator[Seed]:
    """The expected calls of the cases that a format can write."""
    for row in rows:
        made = expected_calls(row, Toolset.of(row["tools"]))
        try:
            text = toolguard.render(WireFormat.load(name), made)
        except toolguard.FormatError:
            continue
        if made:
            yield Seed(row["tools"], text)


def mutation(
    guard: Guard, tokenizer: PreTrainedTokenizerBase, text: str, draw: random.Random
) -> list[int]:
    """The ids of a turn with one character, or one token, put in, taken out or replaced: of a turn
    that is still UTF-8, since masks make no other."""
    removed, added = draw.choice([(0, 1), (1, 0), (1, 1)])
    if draw.random() < 0.5:
        place = draw.randint(0, len(text))
        character = draw.choice([draw.choice(CHARACTERS), draw.choice(text)])
        ids = encoded(tokenizer, text[:place] + character * added + text[place + removed :])
    else:
        ids = encoded(tokenizer, text)
        place = draw.randint(0, len(ids))
        controls = [*guard.control_ids.values(), *guard.vocabulary.end_ids]
        token = draw.choice(
            [draw.choice(controls), draw.choice(ids), draw.randrange(len(tokenizer))]
        )
        ids[place : place + removed] = [token] * added
    if not _is_text(guard.vocabulary.bytes_of(ids)):
        return mutation(guard, tokenizer, text, draw)
    ends = guard.vocabulary.end_ids
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return [*ids[:stop], ids[stop] if stop < len(ids) else ends[0]]


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def decoded(
    name: str, tokenizers: Sequence[PreTrainedTokenizerBase], count: int, seed: int
) -> Iterator[str]:
    """What is wrong with each turn made from random logits; empty where nothing is."""
    results: list[str] = []

    @seeded(seed)
    @settings(
        max_examples=max(1, -(-count // ROWS)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(tools=bare_toolsets(), tokenizer=st.sampled_from(tokenizers), data=st.data())
    def check(
        tools: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, data: st.DataObject
    ) -> None:
        try:
            results.extend(random_turns(name, tools, tokenizer, data, ROWS))
        except (AssertionError, toolguard.ToolguardError) as error:
            results.extend([f"{type(error).__name__} {error}: {tools}"] * ROWS)

    check()
    yield from results[:count]


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


if __name__ == "__main__":
    typer.run(main)
