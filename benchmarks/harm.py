"""Whether a healthy turn is harmed: every format, on 300 requests.

    python -m benchmarks.harm [--format hermes] ... [--full] [--json]

The expected calls of BFCL's cases (`TOOLGUARD_DATA`) and of the built-in ones are rendered in every
format, as the format writes several calls or one: alone, after text, after reasoning, after both,
and after reasoning that the prompt has opened. Each turn must be read as `healthy_call` with these
calls, that text and that reasoning; come back from `repair` as it was; and be admitted by the mask,
token by token, with the real tokenizers at hand (the bundled one where there are none).

Every case is read alone and in one other of these ways, and every tenth walks under the mask of one
tokenizer, in turn; `--full` is all ways of all cases with all tokenizers, which takes hours.
What a format cannot say (an argument name that cannot stand bare) is counted as `unsaid`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import track
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import toolguard
from toolguard import FormatError, Guard, ToolguardError, Toolset, ToolsetError, WireFormat

from .formats import encode
from .real_data import DATA, expected_calls, made_calls, requests
from .replay_scripts import real_tokenizer
from .tables import table

CASES = 300
TOKENIZERS = ("qwen3", "deepseek-v3", "gpt-oss", "mistral-7b-v0.3")
TEXT = "Let me look that up for you.\n"
REASONING = "The user wants an answer, so I look it up.\nOne moment."


class Way(NamedTuple):
    """What stands before the calls of a turn."""

    text: str = ""
    reasoning: str = ""
    opened: bool = False


WAYS = (
    Way(),
    Way(text=TEXT),
    Way(reasoning=REASONING),
    Way(text=TEXT, reasoning=REASONING),
    Way(reasoning=REASONING, opened=True),
    Way(text=TEXT, reasoning=REASONING, opened=True),
)


class Request(NamedTuple):
    """A case: its tools, and the calls that it expects."""

    id: str
    toolset: Toolset
    calls: list[dict[str, Any]]


class Healthy(NamedTuple):
    """A healthy turn.

    Attributes:
        text: as the model writes it, without its end token.
    """

    request: Request
    way: Way
    calls: list[dict[str, Any]]
    text: str


def main(
    formats: Annotated[list[str] | None, typer.Option("--format", help="Only these.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth case.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="All ways, cases and tokenizers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Rows, a JSON object a line.")] = False,
) -> None:
    rows = []
    names = formats or toolguard.format_names()
    for name in track(names, "formats", console=Console(stderr=True), transient=True):
        rows.append(harmed(WireFormat.load(name), asked()[::every], full))
        if as_json:
            print(json.dumps(rows[-1]), flush=True)
    if not as_json:
        print(table(rows))
    if any(row["harmed"] for row in rows):
        raise typer.Exit(1)


@cache
def asked() -> list[Request]:
    """The cases: BFCL's where they are at hand, and built-in ones."""
    path = DATA / "bfcl_dev.jsonl"
    found = []
    for row in requests(path) if path.is_file() else []:
        toolset = Toolset.of(row["tools"])
        found.append(Request(row["id"], toolset, expected_calls(row, toolset)))
    for case in toolguard.builtin_cases():
        calls = [{"name": call["name"], "arguments": call["arguments"]} for call in case.calls]
        found.append(Request(case.id, case.toolset, calls))
    return [request for request in found if request.calls][:CASES]


def tokenizers() -> list[PreTrainedTokenizerBase]:
    """The real ones at hand, or the bundled one."""
    if (DATA / "tokenizers").is_dir():
        return [real_tokenizer(name) for name in TOKENIZERS]
    return bundled()


def bundled() -> list[PreTrainedTokenizerBase]:
    return [AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))]


def harmed(wire_format: WireFormat, asked: Sequence[Request], full: bool) -> dict[str, Any]:
    """What one format makes of all cases: counts, and an example of each kind of harm."""
    counts: Counter[str] = Counter()
    harm: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for number, request in enumerate(asked):
        ways = WAYS if full else (WAYS[0], WAYS[1 + number % (len(WAYS) - 1)])
        for turn in healthy(wire_format, request, ways):
            wrong = [reading(wire_format, turn), repairing(wire_format, turn)]
            counts["read"] += 1
            if full or number % 10 == 0:
                every = tokenizers()
                for tokenizer in every if full else [every[number // 10 % len(every)]]:
                    found = masking(wire_format, turn, tokenizer)
                    counts["refused" if found == REFUSED else "walked"] += 1
                    wrong.append("" if found == REFUSED else found)
            for what in filter(None, wrong):
                kind = what.partition(":")[0]
                harm[kind] += 1
                examples.setdefault(kind, f"{request.id}: {what}: {turn.text[:300]!r}")
        counts["unsaid"] += not any(healthy(wire_format, request, WAYS[:1]))
    return {
        "format": wire_format.name,
        **{name: counts[name] for name in ("read", "walked", "refused", "unsaid")},
        "harmed": harm.total(),
        "what": "; ".join(f"{kind} {harm[kind]} ({examples[kind]})" for kind in harm),
    }


def healthy(wire_format: WireFormat, request: Request, ways: Sequence[Way]) -> Iterator[Healthy]:
    """The turns of a case, as far as the format can say them."""
    for way in ways:
        for calls in dict.fromkeys((len(request.calls), 1)):
            made = request.calls[:calls]
            try:
                text = toolguard.render(
                    wire_format, made, way.text, reasoning=way.reasoning, opened=way.opened
                )
            except FormatError:
                continue
            yield Healthy(request, way, made, text)
            break


def reading(wire_format: WireFormat, turn: Healthy) -> str:
    """What is wrong with what is read."""
    found = toolguard.read_turn(
        turn.text, wire_format, turn.request.toolset, opened=turn.way.opened
    )
    if found.state != "healthy_call":
        return f"read as {found.state}: {[fault.kind for fault in found.faults]}"
    if made_calls(found) != turn.calls:
        return f"other calls: {made_calls(found)}"
    if (found.text, found.reasoning) != (turn.way.text.strip(), turn.way.reasoning):
        return f"other words: {found.text!r}, {found.reasoning!r}"
    return ""


def repairing(wire_format: WireFormat, turn: Healthy) -> str:
    """How repair changes it."""
    found = toolguard.repair(
        turn.text, turn.request.toolset, wire_format, opened=turn.way.opened
    ).after
    if found.raw != turn.text:
        return f"changed by repair: {found.raw[:100]!r}"
    return "" if made_calls(found) == turn.calls else "repair loses calls"


REFUSED = "refused"


def masking(wire_format: WireFormat, turn: Healthy, tokenizer: PreTrainedTokenizerBase) -> str:
    """Where the mask stops it; `REFUSED` where the tools or the words cannot be written."""
    opening = "open" if turn.way.opened else "auto"
    try:
        ids = encode(tokenizer, turn.text)
        guard = Guard.compile(wire_format, turn.request.toolset, tokenizer, reasoning=opening)
    except ToolsetError:
        return REFUSED
    except ToolguardError as error:
        return f"no mask: {error}"
    if guard.vocabulary.bytes_of(ids).decode() != turn.text:
        return REFUSED  # SentencePiece cannot spell U+2581: it is its sign for a space
    state = guard.start(len(ids) + 1_000)
    for place, token in enumerate(ids):
        if not state.accept(token):
            before, wanted = tokenizer.decode(ids[:place])[-40:], tokenizer.decode(token)
            return f"masked: {wanted!r} after {before!r}"
    if not any(state.accept(end) for end in guard.vocabulary.end_ids):
        return "masked: the turn may not end"
    return "" if made_calls(guard.read(state.ids)) == turn.calls else "other calls by ids"


if __name__ == "__main__":
    typer.run(main)
