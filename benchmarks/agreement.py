"""Mask, parser and validator say the same of a turn: random mutations and random logits.

`python -m benchmarks.agreement [--cases CASES.jsonl]` mutates turns of each format by one character
or one token, and counts where the mask admits what does not read as a healthy turn, or refuses what
does; then it decodes turns from random logits under random requests, and counts those that do not
end, parse and validate. The turns are the examples beside the grammar and, where cases are given,
their expected calls. Half of it is done with the bundled tokenizer, which spells most control
tokens, and half where each of them is one id.

`--tools FOLDER` takes calls of real tools instead (see `real_calls`): right ones, and ones changed
in a value, in a spelling, or by a character or a token. There jsonschema alone is asked, too. What
the guard's relaxations record explains a difference, and nothing else about a schema does.
"""

from __future__ import annotations

import json
import random
import string
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from tests.strategies import bare_toolsets
from tests.turns import examples, random_turns
from toolguard import Guard, Tool, Toolset, Turn, WireFormat
from toolguard.grammar.request import Reasoning
from toolguard.parsing.turn import OF_TEXT

from .real_calls import changed_value, lists, plainly, respelled, right_arguments
from .real_data import expected_calls

KINDS = ("right", "value", "spelling", "piece")
"""What is made of a right call of a real tool: nothing, another value or member, another spelling
of a number, a character or white space, or one character or token more or less."""
RECORDED = "a recorded relaxation"

COLUMNS = ("mutations", "legal", "disagreements", "explained", "random_turns", "wrong")
ROWS = 10
"""How many random turns are decoded at once, under one request."""
SHOWN = 3
"""How much of what is found is printed for each format; `--json` has all of it."""

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
            reasons: Counter[str] = Counter()
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
                if "explained" in result:
                    reasons[result["explained"]] += 1
                if "disagreements" in result:
                    found.append(result)
                progress.advance(bar)
            for wrong in decoded(name, tokenizers, random_turns, seed):
                counts += Counter(random_turns=1, wrong=bool(wrong))
                if wrong:
                    found.append({"wrong": wrong})
                progress.advance(bar)
            results[name] = {key: counts[key] for key in COLUMNS}
            results[name] |= {"reasons": reasons, "found": found}
    if as_json:
        print(json.dumps(results))
    else:
        show(results)
    sys.exit(any(result["found"] for result in results.values()))


def show(results: dict[str, dict[str, Any]]) -> None:
    reasons = sum((result["reasons"] for result in results.values()), Counter[str]())
    caption = "explained: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    table = Table(title="What mask, parser and validator call legal", caption=caption)
    for heading in ("format", *COLUMNS):
        table.add_column(heading.replace("_", " "), overflow="fold")
    for name, result in results.items():
        legal = f"{result['legal'] / max(result['mutations'], 1):.0%}"
        table.add_row(name, *(str({**result, "legal": legal}[key]) for key in COLUMNS))
    console = Console()
    console.print(table)
    for name, result in results.items():
        for found in result["found"][:SHOWN]:
            console.print(f"{name}: {json.dumps(found, ensure_ascii=False)}", markup=False)


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
            result = judged(guard, tokenizer, mutation(guard, tokenizer, it.text, draw))
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
            arguments = right_arguments(tool, draw)
            if arguments is None:
                yield {"mutations": 1, "disagreements": 1, "no right call of": tool.name}
                continue
            kind = KINDS[number % len(KINDS)]
            if kind == "value":
                arguments = changed_value(arguments, tool, draw)
            call = {"name": tool.name, "arguments": arguments}
            try:
                text = toolguard.render(guard.format, [call])
            except toolguard.FormatError:
                yield {"mutations": 1, "explained": "the format cannot write it"}
                continue
            if kind == "spelling":
                text = respelled(text, draw)
            ids = [*encoded(tokenizer, text), guard.vocabulary.end_ids[0]]
            if kind == "piece":
                ids = mutation(guard, tokenizer, text, draw)
            result = judged(guard, tokenizer, ids)
            if kind in ("right", "value") and "disagreements" not in result:
                result |= validated(guard, ids, tool, arguments)
            yield {"mutations": 1, "kind": kind, **result}


def validated(
    guard: Guard, ids: list[int], tool: Tool, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Whether jsonschema, asked by itself, says of a call's arguments what the reader does."""
    turn = guard.read(ids)
    found = [
        error.message for error in Draft202012Validator(tool.parameters).iter_errors(arguments)
    ]
    if turn.calls and turn.calls[0].arguments != arguments:
        return {"explained": "a string that the wire does not tell from another value"}
    if bool(turn.calls) == (not found):
        return {}
    return {
        "disagreements": 1,
        "raw": turn.raw,
        "jsonschema": found,
        "state": turn.state,
        "faults": [fault.message for fault in turn.faults],
    }


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
    """The ids of a turn with one character, or one token, put in, taken out or replaced."""
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
    ends = guard.vocabulary.end_ids
    stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return [*ids[:stop], ids[stop] if stop < len(ids) else ends[0]]


def judged(guard: Guard, tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> dict[str, Any]:
    """Whether the mask admits a turn and it reads as healthy, from its ids and from its text."""
    admitted = admits(guard, ids)
    turn = guard.read(ids)
    healthy = turn.state.startswith("healthy")
    if admitted == healthy:
        if not healthy or calls(read_text(guard, turn.raw)) == calls(turn):
            return {"legal": healthy}
    elif reason := explained(guard, tokenizer, ids, admitted):
        return {"legal": healthy, "explained": reason}
    return {
        "disagreements": 1,
        "ids": ids,
        "raw": turn.raw,
        "admitted": admitted,
        "state": turn.state,
        "faults": [f"{fault.kind}: {fault.message}" for fault in turn.faults],
        "calls": calls(turn),
        "calls_from_text": calls(read_text(guard, turn.raw)),
    }


def admits(guard: Guard, ids: list[int], retraced: bool = False) -> bool:
    """Whether the mask admits a turn; `retraced`: with its control tokens that are words."""
    state = guard.start(10_000)
    step = state.retrace if retraced else state.accept
    return all(map(step, ids)) and state.done and not state.matcher.broken


def read_text(guard: Guard, text: str) -> Turn:
    opened = guard.reasoning == "open"
    return toolguard.read_turn(text, guard.format, guard.toolset, opened=opened)


def explained(
    guard: Guard, tokenizer: PreTrainedTokenizerBase, ids: list[int], admitted: bool
) -> str:
    """Why mask and parser may differ here; empty where they may not.

    In each of these cases the mask is right to be narrower, or the parser to tell more.
    """
    if admitted:
        # A call without its frame is text to the mask; the parser says what it is.
        kinds = {fault.kind for fault in guard.read(ids).faults}
        if kinds and kinds <= OF_TEXT:
            return "a fault of text"
        loose = loosened(guard, tokenizer)
        return RECORDED if loose.read(ids).state.startswith("healthy") else ""
    # What a model says is read all the same, U+FFFD for what is no character (llguidance spells
    # the byte 0xFF as nothing), but no mask leads into it.
    spelled = [guard.vocabulary.bytes_of([token]) for token in ids]
    if not all(spelled) or not _is_text(b"".join(spelled)):
        return "bytes that are no UTF-8"
    if admits(loosened(guard, tokenizer), ids):
        return RECORDED
    if admits(guard, ids, retraced=True):
        return "a control token as a word: the model's own mass decides"
    # Nobody escapes a letter of a name, or writes 5 as 50e-1: masks have these as they are.
    plain = encoded(tokenizer, plainly(guard.read(ids).raw))
    return "a spelling that nobody needs" if admits(guard, [*plain, ids[-1]]) else ""


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def loosened(guard: Guard, tokenizer: PreTrainedTokenizerBase) -> Guard:
    """The guard of the same tools without what its relaxations record."""
    tools = [
        {"name": tool.name, "parameters": _without(tool.parameters, _recorded(guard, tool.name))}
        for tool in guard.toolset
    ]
    return Guard.compile(guard.format, tools, tokenizer, reasoning=guard.reasoning)


def _recorded(guard: Guard, tool: str) -> frozenset[str]:
    """The keywords of a tool's schema that some relaxation records."""
    found = (it.keyword.split("/") for it in guard.relaxations if it.tool == tool)
    return frozenset(keyword for keywords in found for keyword in keywords)


def _without(schema: Any, keywords: frozenset[str]) -> Any:
    """A schema without these keywords, at any depth."""
    if isinstance(schema, list):
        return [_without(part, keywords) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without(part, keywords) for name, part in value.items()}
        if key == "properties"
        else _without(value, keywords)
        for key, value in schema.items()
        if key not in keywords or key == "properties"
    }


def calls(turn: Turn) -> list[tuple[str, str]]:
    """The calls of a turn, 1 and 1.0 and true apart."""
    return [(call.name, json.dumps(call.arguments)) for call in turn.calls]


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
