"""What a guard costs, beside bare engines and Outlines' processors, side by side in one run.

`python -m benchmarks.cost [--tokenizer DIR] [--repeats 9] [--part compile|step|scale]` needs the
extra `bench`. Without a folder, the tokenizer is Qwen3's of `TOOLGUARD_DATA`, or where that is
absent the bundled one grown to 151,936 ids (see `benchmarks.watch`), on which xgrammar reads the
opener as text in some runs; `--vocabulary 201088` grows it to the size of gpt-oss's.

- compile: from tools to the first mask, with nothing cached, for 1, 10, 30 and 100 tools.
- step: one decoding step of a batch of 1, 8 and 64 rows, at three places: in text, right after a
  call's opener, and in a string. Of ours: fill, apply, watch and bookkeeping (events, region,
  accepting the token); of the engines: fill, apply and accept.
- scale: the same step for up to 10,000 live states, 1,000 tools, turns of 32,000 tokens, as the
  time per token, and what a live state weighs.

Rows are ratios of medians, ours over theirs, with the quartiles of the repeats' ratios.
"""

from __future__ import annotations

import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import llguidance
import llguidance.hf
import llguidance.torch
import torch
import typer
import xgrammar
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

import toolguard
from benchmarks.plain_grammars import plain_grammar
from benchmarks.real_data import DATA
from benchmarks.replay_scripts import real_tokenizer
from benchmarks.watch import PLACES, grown
from toolguard import Guard, GuardState, Toolset
from toolguard.grammar.engine import executor
from toolguard.policy.enforce import enforce

QWEN3 = 151_936
BATCHES = (1, 8, 64)
TOOLS = (1, 10, 30, 100)


def tools(count: int) -> list[dict[str, Any]]:
    """Tools of five parameters each, no two with the same names."""
    kinds = (
        {"type": "string"},
        {"type": "integer"},
        {"type": "boolean"},
        {"enum": ["red", "green", "blue"]},
        {"type": "array", "items": {"type": "number"}},
    )
    return [
        {
            "type": "function",
            "function": {
                "name": f"tool_{n}" if n else "f",
                "parameters": {
                    "type": "object",
                    "properties": {"x": {"type": "string"}}
                    if not n
                    else {f"p{n}_{place}": kind for place, kind in enumerate(kinds)},
                    "required": ["x"] if not n else [f"p{n}_0", f"p{n}_1"],
                },
            },
        }
        for n in range(count)
    ]


def triggered(offered: Sequence[dict[str, Any]], tokenizer: Any) -> Any:
    """What a user of llguidance writes for Hermes calls: free text, and schemas behind tags."""
    grammar = plain_grammar("hermes", Toolset.of([*offered]), tokenizer.get_added_vocab())
    return llguidance.grammar_from("grammar", grammar)


class Ours:
    """The guard, by the policy `enforce`."""

    name = "toolguard"

    def __init__(self, offered: Sequence[dict[str, Any]], tokenizer: Any) -> None:
        self.guard = Guard.compile("hermes", [*offered], tokenizer)

    def start(self, batch: int, begun: Sequence[int]) -> None:
        self.states: list[GuardState] = [self.guard.start(100_000) for _ in range(batch)]
        for token in begun:
            for state in self.states:
                assert state.accept(token)

    def step(self, logits: torch.Tensor, token: int) -> None:
        enforce(self.states, logits)
        for state in self.states:
            state.accept(token)

    def back(self) -> None:
        for state in self.states:
            state.rollback(1)


class LLGuidance:
    """The bare engine: its batch fill, and its own kernel."""

    name = "llguidance"

    def __init__(self, offered: Sequence[dict[str, Any]], tokenizer: Any) -> None:
        self.tokenizer = _ll_tokenizer(tokenizer)
        grammar = triggered(offered, tokenizer)
        self.matcher = llguidance.LLMatcher(self.tokenizer, grammar)
        assert not self.matcher.get_error(), self.matcher.get_error()

    def start(self, batch: int, begun: Sequence[int]) -> None:
        self.matchers = [self.matcher.deep_copy() for _ in range(batch)]
        for matcher in self.matchers:
            matcher.consume_tokens([*begun])
        self.mask = llguidance.torch.allocate_token_bitmask(batch, self.tokenizer.vocab_size)

    def step(self, logits: torch.Tensor, token: int) -> None:
        rows = [(matcher, row) for row, matcher in enumerate(self.matchers)]
        width = self.mask.shape[1]
        executor().unsafe_compute_mask_ptr(rows, self.mask.data_ptr(), width * 4, len(rows))
        llguidance.torch.apply_token_bitmask_inplace(logits, self.mask)
        for matcher in self.matchers:
            matcher.consume_token(token)

    def back(self) -> None:
        for matcher in self.matchers:
            matcher.rollback(1)


class XGrammar:
    """The structural tag that it has built in for the format."""

    name = "xgrammar"

    def __init__(self, offered: Sequence[dict[str, Any]], tokenizer: Any) -> None:
        info = _xgrammar_tokenizer(tokenizer)
        compiler = xgrammar.GrammarCompiler(info, cache_enabled=False)
        tag = xgrammar.get_model_structural_tag("qwen_3", [*offered], reasoning=False)
        self.compiled = compiler.compile_structural_tag(tag)
        self.size = info.vocab_size
        self.filler = xgrammar.BatchGrammarMatcher(max_threads=1)

    def start(self, batch: int, begun: Sequence[int]) -> None:
        self.matchers = [xgrammar.GrammarMatcher(self.compiled) for _ in range(batch)]
        for matcher in self.matchers:
            for token in begun:
                assert matcher.accept_token(token)
        self.mask = xgrammar.allocate_token_bitmask(batch, self.size)

    def step(self, logits: torch.Tensor, token: int) -> None:
        self.filler.batch_fill_next_token_bitmask(self.matchers, self.mask)
        xgrammar.apply_token_bitmask_inplace(logits, self.mask)
        for matcher in self.matchers:
            matcher.accept_token(token)

    def back(self) -> None:
        for matcher in self.matchers:
            matcher.rollback(1)


class Outlines:
    """Outlines' processor of its llguidance backend, with the same grammar as the bare engine."""

    name = "outlines"

    def __init__(self, offered: Sequence[dict[str, Any]], tokenizer: Any) -> None:
        from outlines.backends.llguidance import LLGuidanceLogitsProcessor

        grammar = triggered(offered, tokenizer)
        self.processor = LLGuidanceLogitsProcessor(grammar, _ll_tokenizer(tokenizer), "torch")

    def start(self, batch: int, begun: Sequence[int]) -> None:
        self.processor.reset()
        self.ids = torch.zeros(batch, 1, dtype=torch.long)
        size = self.processor.llg_tokenizer.vocab_size
        self.processor.process_logits(self.ids, torch.zeros(batch, size))
        for matcher in self.processor.ll_matchers:
            matcher.consume_tokens([*begun])
            matcher.rollback(1)
        self.begun = begun[-1]

    def step(self, logits: torch.Tensor, token: int) -> None:
        # it takes the token of the step before, and masks
        self.ids[:, -1] = self.begun
        self.processor.process_logits(self.ids, logits)

    def back(self) -> None:
        for matcher in self.processor.ll_matchers:
            matcher.rollback(1)


ENGINES: tuple[type[Any], ...] = (Ours, LLGuidance, XGrammar, Outlines)
_made: dict[tuple[str, int], Any] = {}


def _ll_tokenizer(tokenizer: Any) -> Any:
    key = ("ll", id(tokenizer))
    if key not in _made:
        _made[key] = llguidance.hf.from_tokenizer(tokenizer)
    return _made[key]


def _xgrammar_tokenizer(tokenizer: Any) -> Any:
    key = ("xgrammar", id(tokenizer))
    if key not in _made:
        _made[key] = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    return _made[key]


def main(
    tokenizer: Annotated[str, typer.Option(help="A folder.")] = "",
    vocabulary: Annotated[int, typer.Option(min=1024)] = QWEN3,
    repeats: Annotated[int, typer.Option(min=3)] = 9,
    parts: Annotated[list[str] | None, typer.Option("--part")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    torch.set_num_threads(1)
    if tokenizer:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    elif vocabulary == QWEN3 and (DATA / "tokenizers" / "qwen3").is_dir():
        loaded = real_tokenizer("qwen3")
    else:
        bundled = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
        loaded = grown(bundled, vocabulary)
    work = {"compile": compiles, "step": steps, "scale": scale}
    found = {part: work[part](loaded, vocabulary, repeats) for part in parts or work}
    if as_json:
        print(json.dumps(found))
        return
    for part, rows in found.items():
        table = Table(title=f"{part}, {vocabulary:,} ids; microseconds")
        for heading in rows[0]:
            table.add_column(heading)
        for row in rows:
            table.add_row(*(f"{v:,.2f}" if isinstance(v, float) else str(v) for v in row.values()))
        Console().print(table)


def compiles(tokenizer: Any, vocabulary: int, repeats: int) -> list[dict[str, Any]]:
    """From tools to the first mask; and how long ours takes for the same tools again."""
    logits = torch.randn((1, vocabulary), generator=torch.Generator().manual_seed(0))
    for engine in ENGINES:  # what is made once for a tokenizer is not counted
        warm = engine(tools(1), tokenizer)
        warm.start(1, tokenizer("<tool_call>", add_special_tokens=False)["input_ids"])
    rows = []
    for count in TOOLS:
        times: dict[str, list[float]] = {engine.name: [] for engine in ENGINES}
        again = []
        for repeat in range(repeats):
            offered = tools(count)
            for tool in offered:  # nothing is in a cache
                tool["function"]["name"] += f"_{repeat}"
            for engine in ENGINES:
                started = time.perf_counter()
                made = engine(offered, tokenizer)
                _first_mask(made, tokenizer, logits)
                times[engine.name].append(time.perf_counter() - started)
            started = time.perf_counter()
            Guard.compile("hermes", offered, tokenizer)
            again.append(time.perf_counter() - started)
        cached = 1e6 * statistics.median(again)
        rows.append({"tools": count, **_compared(times, 1), "ours, cached": cached})
    return rows


def _first_mask(made: Any, tokenizer: Any, logits: torch.Tensor) -> None:
    begun = tokenizer("<tool_call>", add_special_tokens=False)["input_ids"]
    made.start(1, begun)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    made.step(logits.clone(), newline)


def steps(tokenizer: Any, vocabulary: int, repeats: int) -> list[dict[str, Any]]:
    """One step of a batch."""
    engines = [engine(tools(1), tokenizer) for engine in ENGINES]
    rows = []
    for place, (begun, next_text) in PLACES.items():
        ids = tokenizer(begun, add_special_tokens=False)["input_ids"]
        likely = tokenizer(next_text, add_special_tokens=False)["input_ids"][0]
        for batch in BATCHES:
            for engine in engines:
                engine.start(batch, ids)
            logits = torch.randn((batch, vocabulary), generator=torch.Generator().manual_seed(0))
            logits[:, likely] = 25.0
            times: dict[str, list[float]] = {engine.name: [] for engine in engines}
            for engine in engines:
                _timed(engine, logits, likely)
            for _ in range(repeats):
                for engine in engines:
                    times[engine.name].append(_timed(engine, logits, likely))
            rows.append({"place": place, "batch": batch, **_compared(times, batch)})
    return rows


def _timed(engine: Any, logits: torch.Tensor, token: int, rounds: int = 10) -> float:
    """The mean of some steps, each on a fresh copy of the logits and from the same place."""
    spent = 0.0
    for _ in range(rounds):
        scores = logits.clone()
        started = time.perf_counter()
        engine.step(scores, token)
        spent += time.perf_counter() - started
        engine.back()
    return spent / rounds


def _compared(times: dict[str, list[float]], rows: int) -> dict[str, Any]:
    """Medians in microseconds a row, and ours over each, with quartiles."""
    found: dict[str, Any] = {
        name: 1e6 * statistics.median(each) / rows for name, each in times.items()
    }
    own = times[Ours.name]
    for name, each in times.items():
        if name != Ours.name:
            ratios = [a / b for a, b in zip(own, each, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            found[f"ours / {name}"] = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    return found


def scale(tokenizer: Any, vocabulary: int, repeats: int) -> list[dict[str, Any]]:
    """What grows with what: a step's cost a token, and the memory of a state."""
    return [
        *(_grown("live states", n, tokenizer, vocabulary, live=n) for n in (1, 100, 1000, 10_000)),
        *(_grown("tools", n, tokenizer, vocabulary, offered=n) for n in (1, 10, 100, 1000)),
        *(_grown("tokens", n, tokenizer, vocabulary, length=n) for n in (100, 1000, 8000, 32_000)),
    ]


def _grown(
    what: str,
    size: int,
    tokenizer: Any,
    vocabulary: int,
    live: int = 1,
    offered: int = 10,
    length: int = 100,
) -> dict[str, Any]:
    guard = Guard.compile("hermes", tools(offered), tokenizer)
    tracemalloc.start()
    states = [guard.start(100_000) for _ in range(live)]
    weight = tracemalloc.get_traced_memory()[0] / live
    tracemalloc.stop()
    word = tokenizer(" is", add_special_tokens=False)["input_ids"][-1]
    for state in states:
        state.accept(word)
    for _ in range(length):
        states[0].accept(word)
    logits = torch.randn((1, vocabulary), generator=torch.Generator().manual_seed(0))
    logits[:, word] = 25.0
    text = _median(lambda: _one(states[-1:], logits, word))
    long = _median(lambda: _one(states[:1], logits, word))
    call = guard.start(100_000)
    for token in tokenizer("<tool_call>\n", add_special_tokens=False)["input_ids"]:
        assert call.accept(token)
    brace = tokenizer('{"name": "', add_special_tokens=False)["input_ids"]
    opened = _median(lambda: _one([call], logits, brace[0]))
    return {
        "grows": what, "size": size, "text": text, "text, long turn": long, "in a call": opened,
        "Python bytes a state": weight,
    }  # fmt: skip


def _one(states: Sequence[GuardState], logits: torch.Tensor, token: int) -> float:
    scores = logits.clone()
    started = time.perf_counter()
    enforce(states, scores)
    taken = [state.accept(token) for state in states]
    spent = time.perf_counter() - started
    for state, took in zip(states, taken, strict=True):
        if took:
            state.rollback(1)
    return spent


def _median(work: Callable[[], float], rounds: int = 101) -> float:
    return 1e6 * statistics.median(work() for _ in range(rounds))


if __name__ == "__main__":
    typer.run(main)
