"""What a guard costs, beside bare engines and Outlines' processors, side by side in one run.

    python -m benchmarks.cost [--repeats 9] [--part compile] [--tokenizer DIR] [--json]

needs the extra `bench`. It is done for Hermes calls on Qwen3's tokenizer (151,936 ids) and for
harmony's on gpt-oss's (201,088), of `TOOLGUARD_DATA`; where that is absent, for Hermes calls on the
bundled tokenizer grown to these sizes (see `benchmarks.watch`), on which xgrammar reads the opener
as text in some runs. `--tokenizer` has Hermes calls on another one.

- compile: from tools to states that stand behind a call's opener, then the first mask there, with
  nothing cached, for 1, 10, 30 and 100 tools; and ours for the same tools again.
- step: one decoding step of a batch of 1, 8 and 64 rows, at five places: in text before a very
  common word, a usual one and a rare one, right after a call's opener, and in a string. Of ours:
  fill, apply, watch and bookkeeping (events, region, accepting the token); of the engines: fill,
  apply and accept.
- pieces: the same at batch 8, each piece by itself; Outlines' processor has none.
- scale: the same step of ours for up to 10,000 live states, 1,000 tools, turns of 32,000 tokens.
- memory: by how much the process grows for every live state that has taken one step, and how much
  of that Python's allocator knows of. Linux with glibc only.
  It comes last: it has every larger block lie by itself, which slows what follows.

Times are microseconds, of a step those of a row: medians of the repeats. Ratios are ours over
theirs, with the quartiles of the repeats' ratios.
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import llguidance
import llguidance.hf
import llguidance.torch
import torch
import typer
import xgrammar
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoTokenizer

import toolguard
from toolguard import Guard, Toolset, WireFormat
from toolguard.decoding.batch import fill
from toolguard.grammar.engine import executor
from toolguard.policy.enforce import enforce, hold, record

from .peers_decoding import XGRAMMAR, XGRAMMAR_STOPS
from .plain_grammars import plain_grammar
from .real_data import DATA
from .replay_scripts import SIZES, Subject, subject
from .tables import spread
from .watch import PLACES as HERMES
from .watch import grown

_CALL = " to=functions.f<|channel|>commentary json"
PLACES = {
    "hermes": {**HERMES, "usual word": ("It", " camera"), "rare word": ("It", " marvelous")},
    "harmony": {
        "text": ("<|channel|>final<|message|>It", " is"),
        "string": (_CALL + '<|message|>{"x": "Par', "is"),
        "opened": (_CALL, "<|message|>"),
        "usual word": ("<|channel|>final<|message|>It", " camera"),
        "rare word": ("<|channel|>final<|message|>It", " marvelous"),
    },
}
"""By format, beginnings of a turn, and what is likely to follow each. The rarer a word, the higher
is its id: the watch looks at the low ones first."""
BATCHES = (1, 8, 64)
TOOLS = (1, 10, 30, 100)
LIVE = (1_000, 10_000)
_MMAP_THRESHOLD = -3
"""glibc's number of that option: larger blocks lie by themselves, and go back when freed."""
Rows = Iterator[dict[str, Any]]


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


class Ours:
    """The guard, by the policy `enforce`."""

    name = "toolguard"

    def __init__(self, offered: Sequence[dict[str, Any]], spoken: Subject) -> None:
        self.guard = Guard.compile(
            spoken.wire_format, [*offered], spoken.tokenizer, end_tokens=spoken.ends
        )

    def state(self, begun: Sequence[int]) -> Any:
        state = self.guard.start(100_000)
        for token in begun:
            assert state.accept(token)
        return state

    def start(self, batch: int, begun: Sequence[int]) -> None:
        self.states = [self.state(begun) for _ in range(batch)]

    def step(self, logits: torch.Tensor, token: int) -> None:
        enforce(self.states, logits)
        self.accept(token)

    def pieces(self) -> dict[str, Callable[[torch.Tensor, int], None]]:
        def filled(logits: torch.Tensor, token: int) -> None:
            self.mask = fill(self.states)

        def applied(logits: torch.Tensor, token: int) -> None:
            self.reading = hold(self.states, logits, bitmask=self.mask)

        def recorded(logits: torch.Tensor, token: int) -> None:
            record(self.states, self.reading)

        return {
            "fill": filled, "apply": applied, "record": recorded,
            "accept": lambda _, token: self.accept(token),
        }  # fmt: skip

    def accept(self, token: int) -> None:
        for state in self.states:
            state.accept(token)

    def back(self) -> None:
        for state in self.states:
            state.rollback(1)


class Bare:
    """What the engines have in common: a matcher a row, and a bitmask of all."""

    def start(self, batch: int, begun: Sequence[int]) -> None:
        self.states = [self.state(begun) for _ in range(batch)]
        self.mask = self.allocated(batch)

    def state(self, begun: Sequence[int]) -> Any:
        raise NotImplementedError

    def allocated(self, batch: int) -> torch.Tensor:
        raise NotImplementedError

    def fill(self) -> None:
        raise NotImplementedError

    def apply(self, logits: torch.Tensor) -> None:
        raise NotImplementedError

    def accept(self, token: int) -> None:
        raise NotImplementedError

    def step(self, logits: torch.Tensor, token: int) -> None:
        self.fill()
        self.apply(logits)
        self.accept(token)

    def pieces(self) -> dict[str, Callable[[torch.Tensor, int], None]]:
        return {
            "fill": lambda logits, token: self.fill(),
            "apply": lambda logits, token: self.apply(logits),
            "accept": lambda logits, token: self.accept(token),
        }

    def back(self) -> None:
        for matcher in self.states:
            matcher.rollback(1)


class LLGuidance(Bare):
    """The bare engine on a triggered grammar: its batch fill, and its own kernel."""

    name = "llguidance"

    def __init__(self, offered: Sequence[dict[str, Any]], spoken: Subject) -> None:
        self.tokenizer = _ll_tokenizer(spoken)
        self.matcher = llguidance.LLMatcher(self.tokenizer, triggered(offered, spoken))
        assert not self.matcher.get_error(), self.matcher.get_error()

    def state(self, begun: Sequence[int]) -> Any:
        matcher = self.matcher.deep_copy()
        assert matcher.consume_tokens([*begun])
        return matcher

    def allocated(self, batch: int) -> torch.Tensor:
        return llguidance.torch.allocate_token_bitmask(batch, self.tokenizer.vocab_size)

    def fill(self) -> None:
        rows = [(matcher, row) for row, matcher in enumerate(self.states)]
        width = self.mask.shape[1]
        executor().unsafe_compute_mask_ptr(rows, self.mask.data_ptr(), width * 4, len(rows))

    def apply(self, logits: torch.Tensor) -> None:
        llguidance.torch.apply_token_bitmask_inplace(logits, self.mask)

    def accept(self, token: int) -> None:
        for matcher in self.states:
            matcher.consume_token(token)


class XGrammar(Bare):
    """The structural tag that it has built in for the format."""

    name = "xgrammar"

    def __init__(self, offered: Sequence[dict[str, Any]], spoken: Subject) -> None:
        info = _xgrammar_tokenizer(spoken)
        name = spoken.wire_format.name
        tag = xgrammar.get_model_structural_tag(
            XGRAMMAR.get(name, name), [*offered], reasoning="disabled"
        )
        compiler = xgrammar.GrammarCompiler(info, cache_enabled=False)
        self.compiled = compiler.compile_structural_tag(tag)
        self.size = info.vocab_size
        self.filler = xgrammar.BatchGrammarMatcher(max_threads=1)

    def state(self, begun: Sequence[int]) -> Any:
        matcher = xgrammar.GrammarMatcher(self.compiled)
        for token in begun:
            assert matcher.accept_token(token)
        return matcher

    def allocated(self, batch: int) -> torch.Tensor:
        return xgrammar.allocate_token_bitmask(batch, self.size)

    def fill(self) -> None:
        self.filler.batch_fill_next_token_bitmask(self.states, self.mask)

    def apply(self, logits: torch.Tensor) -> None:
        xgrammar.apply_token_bitmask_inplace(logits, self.mask)

    def accept(self, token: int) -> None:
        for matcher in self.states:
            matcher.accept_token(token)


class Outlines:
    """Outlines' processor of its llguidance backend, with the same grammar as the bare engine."""

    name = "outlines"

    def __init__(self, offered: Sequence[dict[str, Any]], spoken: Subject) -> None:
        from outlines.backends.llguidance import LLGuidanceLogitsProcessor

        self.processor = LLGuidanceLogitsProcessor(
            triggered(offered, spoken), _ll_tokenizer(spoken), "torch"
        )

    def start(self, batch: int, begun: Sequence[int]) -> None:
        self.processor._setup(batch)  # what it does before the first token
        self.processor.is_first_token = False
        for matcher in self.processor.ll_matchers:
            matcher.consume_tokens([*begun[:-1]])
        self.ids = torch.zeros(batch, 1, dtype=torch.long)
        self.begun = begun[-1]

    def step(self, logits: torch.Tensor, token: int) -> None:
        # it takes the token of the step before, and masks
        self.ids[:, -1] = self.begun
        self.processor.process_logits(self.ids, logits)

    def back(self) -> None:
        for matcher in self.processor.ll_matchers:
            matcher.rollback(1)


ENGINES: tuple[type[Any], ...] = (Ours, LLGuidance, XGrammar, Outlines)
BESIDE: tuple[type[Any], ...] = (Ours, LLGuidance, XGrammar)
"""Those whose pieces and states are their own."""
_made: dict[tuple[str, int], Any] = {}


def triggered(offered: Sequence[dict[str, Any]], spoken: Subject) -> Any:
    """What a user of llguidance writes for such calls: free text, and schemas behind tags."""
    grammar = plain_grammar(
        spoken.wire_format.name, Toolset.of([*offered]), spoken.tokenizer.get_added_vocab()
    )
    return llguidance.grammar_from("grammar", grammar)


def _ll_tokenizer(spoken: Subject) -> Any:
    key = ("ll", id(spoken.tokenizer))
    if key not in _made:
        _made[key] = llguidance.hf.from_tokenizer(
            spoken.tokenizer,  # type: ignore[arg-type]
            n_vocab=spoken.size,
            eos_token=spoken.ends,
        )
    return _made[key]


def _xgrammar_tokenizer(spoken: Subject) -> Any:
    key = ("xgrammar", id(spoken.tokenizer))
    if key not in _made:
        stop = XGRAMMAR_STOPS.get(spoken.wire_format.name)
        _made[key] = xgrammar.TokenizerInfo.from_huggingface(
            spoken.tokenizer,
            vocab_size=spoken.size,
            stop_token_ids=[spoken.tokenizer.get_added_vocab()[stop]] if stop else None,
        )
    return _made[key]


def main(
    tokenizer: Annotated[str, typer.Option(help="A folder.")] = "",
    repeats: Annotated[int, typer.Option(min=3)] = 9,
    parts: Annotated[list[str] | None, typer.Option("--part", help="Only these.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line, as it is done.")] = False,
) -> None:
    torch.set_num_threads(1)
    work = {
        "compile": compiles, "step": steps, "pieces": pieces, "scale": scale, "memory": memory,
    }  # fmt: skip
    spoken = subjects(tokenizer)
    found: dict[str, list[dict[str, Any]]] = {}
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(parts or work) * len(spoken))
        for part in parts or work:
            for one in spoken:
                bars.update(bar, description=f"{part}, {one.size:,} ids")
                for row in work[part](one, repeats):
                    row = {"ids": one.size, "format": one.wire_format.name, **row}
                    found.setdefault(part, []).append(row)
                    if as_json:
                        print(json.dumps({"part": part, **row}), flush=True)
                bars.advance(bar)
    if as_json:
        return
    for part, rows in found.items():
        table = Table(title=part)
        for heading in rows[0]:
            table.add_column(heading)
        for row in rows:
            table.add_row(*(f"{v:,.1f}" if isinstance(v, float) else str(v) for v in row.values()))
        Console().print(table)


def subjects(folder: str) -> list[Subject]:
    """The formats and vocabularies that it is done for."""
    hermes = WireFormat.load("hermes")
    if folder:
        loaded = AutoTokenizer.from_pretrained(folder)
        return [Subject(hermes, loaded, len(loaded))]
    if (DATA / "tokenizers").is_dir():
        return [subject("hermes", "qwen3"), subject("harmony", "gpt-oss")]
    bundled = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    sizes = (SIZES["qwen3"], SIZES["gpt-oss"])
    return [Subject(hermes, grown(bundled, size), size) for size in sizes]


def at(spoken: Subject, place: str) -> tuple[list[int], int]:
    """The ids that a turn has begun with at a place, and one that is likely there."""
    begun, likely = (
        spoken.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in PLACES[spoken.wire_format.name][place]
    )
    return begun, likely[0]


def likely_logits(spoken: Subject, batch: int, likely: int) -> torch.Tensor:
    """Those of a healthy model."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((batch, spoken.size), generator=generator)
    logits[:, likely] = 25.0
    return logits


def compiles(spoken: Subject, repeats: int) -> Rows:
    """From tools to the first mask; and how long ours takes for the same tools again."""
    begun, likely = at(spoken, "opened")
    logits = likely_logits(spoken, 1, likely)
    for engine in ENGINES:  # what is made once for a tokenizer is not counted
        engine(tools(1), spoken).start(1, begun)
    for count in TOOLS:
        made: dict[str, list[float]] = {engine.name: [] for engine in ENGINES}
        first: dict[str, list[float]] = {engine.name: [] for engine in ENGINES}
        again = []
        for repeat in range(repeats):
            offered = tools(count)
            for tool in offered[1:]:  # nothing is in a cache; `f` is called where one is begun
                tool["function"]["name"] += f"_{repeat}"
            offered[0]["function"]["parameters"]["properties"][f"y_{repeat}"] = {"type": "string"}
            for engine in ENGINES:
                started = time.perf_counter()
                new = engine(offered, spoken)
                new.start(1, begun)
                made[engine.name].append(time.perf_counter() - started)
                scores = logits.clone()
                started = time.perf_counter()
                new.step(scores, likely)
                first[engine.name].append(time.perf_counter() - started)
            started = time.perf_counter()
            Ours(offered, spoken)
            again.append(time.perf_counter() - started)
        both = {
            name: [one + other for one, other in zip(made[name], first[name], strict=True)]
            for name in made
        }
        yield {"tools": count, "what": "compile", **_compared(made, 1)}
        yield {"tools": count, "what": "first mask", **_compared(first, 1)}
        yield {"tools": count, "what": "both", **_compared(both, 1)}
        cached = {"toolguard": 1e6 * statistics.median(again)}
        yield {"tools": count, "what": "compile, cached", **cached}


def steps(spoken: Subject, repeats: int) -> Rows:
    """One step of a batch."""
    engines = [engine(tools(1), spoken) for engine in ENGINES]
    for place in PLACES[spoken.wire_format.name]:
        begun, likely = at(spoken, place)
        for batch in BATCHES:
            logits = likely_logits(spoken, batch, likely)
            times: dict[str, list[float]] = {engine.name: [] for engine in engines}
            for engine in engines:
                engine.start(batch, begun)
                _timed(engine, logits, likely)
            for _ in range(repeats):
                for engine in engines:
                    times[engine.name].append(_timed(engine, logits, likely))
            yield {"place": place, "batch": batch, **_compared(times, batch)}


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
            found[f"ours / {name}"] = spread(ratios, ".2f")
    return found


def pieces(spoken: Subject, repeats: int, batch: int = 8) -> Rows:
    """What a step is made of; what ours calls apply is the watch's, too."""
    engines = [engine(tools(1), spoken) for engine in BESIDE]
    for place in PLACES[spoken.wire_format.name]:
        begun, likely = at(spoken, place)
        logits = likely_logits(spoken, batch, likely)
        for engine in engines:
            engine.start(batch, begun)
            parts = engine.pieces()
            times: dict[str, list[float]] = {name: [] for name in parts}
            for _ in range(10 * repeats):
                scores = logits.clone()
                for name, part in parts.items():
                    started = time.perf_counter()
                    part(scores, likely)
                    times[name].append(1e6 * (time.perf_counter() - started) / batch)
                engine.back()
            found = {name: statistics.median(each) for name, each in times.items()}
            yield {
                "place": place, "engine": engine.name,
                **{name: found.get(name, 0.0) for name in ("fill", "apply", "record", "accept")},
                "sum": sum(found.values()),
            }  # fmt: skip


def memory(spoken: Subject, repeats: int) -> Rows:
    """What a live state weighs, in bytes, once it has been asked for a mask."""
    glibc = ctypes.CDLL("libc.so.6")
    glibc.mallopt(_MMAP_THRESHOLD, 64 * 1024)  # logits never lie between states
    kept: list[Any] = []  # what was freed would be used again, unseen
    engines = [engine(tools(10), spoken) for engine in BESIDE]
    work = [(engine, place) for engine in engines for place in ("text", "string")]
    rows: list[dict[str, Any]] = []

    def resident() -> int:
        gc.collect()  # what the parts before left behind is not let go in between
        glibc.malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    for engine, place in work:
        _live(engine, spoken, place, 100, kept)
        before, held = resident(), 0
        rows.append({"place": place, "engine": engine.name})
        for count in LIVE:
            _live(engine, spoken, place, count - held, kept)
            held = count
            rows[-1][f"{count:,} live"] = (resident() - before) / count
    for row, (engine, place) in zip(rows, work, strict=True):
        tracemalloc.start()
        _live(engine, spoken, place, 1_000, kept)
        row["of it Python's"] = tracemalloc.get_traced_memory()[0] / 1_000
        tracemalloc.stop()
        yield row


def _live(engine: Any, spoken: Subject, place: str, count: int, kept: list[Any]) -> None:
    """So many more states at a place, each after one step."""
    begun, likely = at(spoken, place)
    logits = likely_logits(spoken, 10, likely)
    scores = logits.clone()
    for _ in range(0, count, 10):
        engine.start(10, begun)
        engine.step(scores.copy_(logits), likely)
        kept.extend(engine.states)


def scale(spoken: Subject, repeats: int) -> Rows:
    """What grows with what: a step's cost a token, the median of rounds over all sizes."""
    sizes = [
        *(("live states", live, {"live": live}) for live in (1, 100, 1_000, 10_000)),
        *(("tools", offered, {"offered": offered}) for offered in (1, 10, 100, 1_000)),
        *(("tokens of a turn", long, {"length": long}) for long in (100, 1_000, 8_000, 32_000)),
    ]
    rounds = [[_grown(spoken, **given) for _, _, given in sizes] for _ in range(min(repeats, 5))]
    for (grows, size, _), found in zip(sizes, zip(*rounds, strict=True), strict=True):
        row = {place: statistics.median(one[place] for one in found) for place in found[0]}
        yield {"grows": grows, "size": size, **row}


def _grown(
    spoken: Subject, live: int = 1, offered: int = 10, length: int = 100
) -> dict[str, float]:
    """A step of one state, at each place; where a turn is long, `length` words lie behind it."""
    engine = Ours(tools(offered), spoken)
    idle = [engine.state(at(spoken, "text")[0]) for _ in range(live - 1)]
    found: dict[str, float] = {}
    for place in PLACES[spoken.wire_format.name]:
        begun, likely = at(spoken, place)
        engine.start(1, begun)
        if place != "opened":
            for _ in range(length):
                assert engine.states[0].accept(likely)
        logits = likely_logits(spoken, 1, likely)
        found[place] = 1e6 * statistics.median(
            _timed(engine, logits, likely, 1) for _ in range(101)
        )
    del idle
    return found


if __name__ == "__main__":
    typer.run(main)
