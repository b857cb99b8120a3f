"""What the watch costs on top of filling and applying masks, and both beside the bare engine's.

`python -m benchmarks.watch [--tokenizer DIR] [--vocabulary 151936] [--repeats 15]`: medians of
repeats, side by side, for batches of 1, 8 and 64 rows. Three places: in text and in a string, where
nearly all tokens are legal, and after a call's opener, where few are. The logits are a healthy
model's: one likely legal token, and no control token near the gate; and, as the worst case, one
that wants to end the turn as much as to go on, so that each row's gate passes.

Masks cost by the vocabulary that they are of, not by how many logits there are: without a tokenizer
the bundled one is grown to nearly that many logits by words that nobody says. `llguidance` fills
with the engine's own batch call and applies with its own torch kernel, which wants a C++ compiler
on this machine.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import llguidance.torch
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import toolguard
from toolguard import Guard
from toolguard.decoding.batch import apply, fill
from toolguard.decoding.watch import Watch

TOOLS = [{"name": "f", "parameters": {"properties": {"x": {"type": "string"}}, "required": ["x"]}}]
PLACES = {
    "text": ("It", " is"),
    "string": ('<tool_call>\n{"name": "f", "arguments": {"x": "Par', "is"),
    "opened": ("<tool_call>", "\n"),
}
"""A beginning of a turn, and what is likely to follow it."""


def main(
    tokenizer: Annotated[str, typer.Option(help="A folder; its vocabulary is padded.")] = "",
    vocabulary: Annotated[int, typer.Option(min=1024)] = 151_936,
    repeats: Annotated[int, typer.Option(min=3)] = 15,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    torch.set_num_threads(threads)
    loaded = AutoTokenizer.from_pretrained(tokenizer or toolguard.checkpoint("healthy"))
    if not tokenizer:
        loaded = grown(loaded, vocabulary)
    guard = Guard.compile("hermes", TOOLS, loaded)
    rows: list[dict[str, Any]] = []
    settings = [(place, batch) for place in PLACES for batch in (1, 8, 64)]
    for place, batch in track(settings, "places", console=Console(stderr=True), transient=True):
        begun, next_text = PLACES[place]
        states = [guard.start(1000) for _ in range(batch)]
        for token in loaded(begun, add_special_tokens=False)["input_ids"]:
            assert all(state.accept(token) for state in states)
        likely = loaded(next_text, add_special_tokens=False)["input_ids"][0]
        assert states[0].allows(likely)
        for spiked in (False, True):
            logits = torch.randn((batch, vocabulary), generator=torch.Generator().manual_seed(0))
            logits[:, likely] = 25.0
            if spiked:
                logits[:, guard.vocabulary.end_ids[0]] = 24.0
            found = compare(guard, states, logits, repeats)
            rows.append({"place": place, "batch": batch, "gate passes": spiked, **found})
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(title=f"Microseconds a row, {vocabulary:,} logits, {threads} thread(s)")
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def grown(tokenizer: Any, size: int) -> Any:
    """A tokenizer of about that many ids: three in a hundred of the new ones hold a quote."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    known = backend["model"]["vocab"]
    for token in range(len(tokenizer), size - 256):
        word = "".join(chr(97 + token // 26**place % 26) for place in range(4))
        known[("\u0120" if token % 2 else "") + word + ('"' if token % 33 == 0 else "")] = token
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        eos_token=tokenizer.eos_token,
    )


def compare(guard: Guard, states: list[Any], logits: torch.Tensor, repeats: int) -> dict[str, Any]:
    watch = Watch.of(guard)

    def bare(scores: torch.Tensor) -> None:
        llguidance.torch.apply_token_bitmask_inplace(scores, fill(states))

    def mask(scores: torch.Tensor) -> None:
        apply(fill(states), scores)

    def masked_and_watched(scores: torch.Tensor) -> None:
        reading = watch.mask(scores, fill(states))
        reading.close(scores)
        reading.records()

    bare(logits.clone())  # compiles its kernel
    engine, plain, watched = [], [], []
    for _ in range(repeats):
        engine.append(seconds(bare, logits))
        plain.append(seconds(mask, logits))
        watched.append(seconds(masked_and_watched, logits))

    def ratio(before: list[float]) -> float:
        return round(statistics.median(b / a for a, b in zip(before, watched, strict=True)), 3)

    return {
        "llguidance": round(1e6 * statistics.median(engine) / len(states), 1),
        "fill and apply": round(1e6 * statistics.median(plain) / len(states), 1),
        "with the watch": round(1e6 * statistics.median(watched) / len(states), 1),
        "to fill and apply": ratio(plain),
        "to llguidance": ratio(engine),
    }


def seconds(work: Callable[[torch.Tensor], None], logits: torch.Tensor) -> float:
    """The mean of ten runs, each on a fresh copy whose making is not timed."""
    spent = 0.0
    for _ in range(10):
        scores = logits.clone()
        started = time.perf_counter()
        work(scores)
        spent += time.perf_counter() - started
    return spent / 10


if __name__ == "__main__":
    typer.run(main)
