"""Calls that come back from scripted damage, on real tokenizers: ours beside the peers.

    python -m benchmarks.scripted_damage [--quick] [--format hermes] [--method xgrammar] ...
    python -m benchmarks.scripted_damage --cases FOLDER     # BFCL's own files, or cases of yours

Right turns of the cases are played by a `ReplayModel` with damage of growing strength laid on (see
`benchmarks/replay_damage.py`), and every method writes the turn greedily. What comes out counts as

- `exact`: a healthy turn with the expected calls, or the healthy reply where no call is needed.
- `wrong`: calls that satisfy their schemas, and are not the expected ones.
- `none`: no call to run (or no healthy reply, where no call is needed). `errors` are those of them
  that the method raised; the first is kept.
- `calls`: the expected calls came out, whatever else the turn says.

Harm: the same at strength 0, and replies that only talk about tool calls (`benchmarks/prose.py`),
spelled with ordinary tokens and with the control tokens themselves; tokens that differ are counted.

A method that a format gives nothing to work with is there with the reason instead of numbers.

Results are written a file per format, method by method; what is there is replaced, the rest kept,
and the section and the figures are made from all that is there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Annotated, Any

import json_repair
import typer
from rich.console import Console
from rich.progress import Progress

import toolguard
from toolguard import Case, Toolset, WireFormat
from toolguard.evaluation.score import is_exact

from .peers_decoding import DECODERS, Request, Written, absence, decoder
from .prose import prose
from .real_data import DATA
from .repair import accepted_from
from .replay_damage import NAMES, damages
from .replay_model import ReplayModel, Script
from .replay_scripts import PAIRS, Subject, sayable, subject
from .saving import save
from .scripted_report import write_report

RESULTS = Path(__file__).parent / "results"
STRENGTHS = (0.0, 6.0, 8.0, 10.0, 16.0)
QUICK = (0.0, 8.0, 16.0)
QUICK_PROSE = 5
"""With `--quick`, every fifth text."""
SLOW = ("lm_format_enforcer",)
"""With `--quick`, one case: seconds a turn at 150,000 ids, where strings may hold any of them."""
NOISE = 0.25
"""The standard deviation of the damage `noise`, for one nat of strength."""
MORE = 32
"""How many tokens a turn may have beyond the right one's."""
POST_HOC = ("json_repair", "repair")
METHODS = (
    "unguarded", *POST_HOC, "enforce", "recover", "recover_reference",
    *(name for name in DECODERS if name not in ("unguarded", "enforce", "recover")),
)  # fmt: skip
"""In the order of the report. The post-hoc ones read what the unguarded model wrote."""
WHOLE = ("outlines_json", "lm_format_enforcer")
"""They have the model write a call as one JSON object; a script says nothing that it has not."""


def main(
    cases: Annotated[Path, typer.Option(help="A file or a folder.")] = DATA / "bfcl_dev.jsonl",
    formats: Annotated[list[str] | None, typer.Option("--format", help="Only these.")] = None,
    methods: Annotated[list[str] | None, typer.Option("--method", help="Only these.")] = None,
    kinds: Annotated[list[str] | None, typer.Option("--damage", help="Only these.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Cases of a seed.")] = 3,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    quick: Annotated[bool, typer.Option(help="Fewer strengths and texts, and one seed.")] = False,
    curves: Annotated[bool, typer.Option(help="Also the turns; else what is there stays.")] = True,
    harm: Annotated[bool, typer.Option(help="Also the prose; else what is there stays.")] = True,
    out: Path = RESULTS,
) -> None:
    if unknown := sorted({*(kinds or ())} - {*NAMES}):
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(NAMES)}")
    if not cases.exists() or not (DATA / "tokenizers").is_dir():
        raise typer.BadParameter(f"no {cases} or no tokenizers in {DATA}: set TOOLGUARD_DATA")
    read = toolguard.read_cases(cases)
    pairs = [pair for pair in PAIRS if not formats or pair[0] in formats]
    work = [(pair, method) for pair in pairs for method in methods or METHODS]
    strengths, laid = QUICK if quick else STRENGTHS, kinds or NAMES
    drawn = range(1 if quick else seeds)
    steps = len(drawn) * len(laid) * len(strengths)
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=len(work) * steps)
        for place, ((name, tokenizer), method) in enumerate(work):
            bars.update(bar, description=f"{name}, {method}", completed=place * steps)
            bench = Bench(subject(name, tokenizer), method, strengths, laid)
            found: dict[str, Any] = {"absent": bench.absent}
            if curves and not bench.absent:
                found["rows"] = []
                size = 1 if quick and method in SLOW else count
                for row in bench.curves(read, size, drawn):
                    found["rows"].append(row)
                    bars.advance(bar)
            if harm and not bench.absent:
                found["harm"] = bench.harm(QUICK_PROSE if quick else 1)
            keep(out / f"scripted_damage_{name}.json", tokenizer, method, found)
    write_report(out)


_WRITTEN: dict[Any, Written] = {}


class Bench:
    """One method on one format."""

    def __init__(
        self, spoken: Subject, method: str, strengths: Sequence[float], kinds: Sequence[str]
    ) -> None:
        self.spoken, self.method, self.strengths = spoken, method, strengths
        self.laid = damages(spoken)
        self.kinds = [kind for kind in kinds if kind in self.laid or kind == "noise"]

    @property
    def absent(self) -> str:
        """Why the method has no part in the format; empty where it has one."""
        calls = _CALLS.get(self.spoken.wire_format.name, "")
        if self.method == "json_repair" and not calls:
            return "no JSON in this format"
        if self.method in WHOLE and "(?P<call>" not in calls:
            return "no call of this format is a JSON object that a script could say"
        return absence(self.method, self.spoken.wire_format)

    def curves(
        self, cases: Sequence[Case], count: int, seeds: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        """Counts by seed, damage and strength."""
        for seed in seeds:
            chosen = choose(self.spoken, cases, count, seed)
            scripts = [script for _, script in chosen]
            healthy = self.spoken.model(scripts, seed=seed)
            still = self._counted(healthy, healthy, chosen)
            for kind in self.kinds:
                for strength in self.strengths:
                    counts = still
                    if strength:
                        options: dict[str, Any] = {"strength": strength}
                        if kind == "noise":
                            options = {"noise": NOISE * strength}
                        model = self.spoken.model(
                            scripts, self.laid.get(kind), seed=seed, **options
                        )
                        counts = self._counted(model, healthy, chosen)
                    yield {"damage": kind, "strength": strength, "seed": seed, **counts}

    def _counted(
        self, model: ReplayModel, healthy: ReplayModel, chosen: Sequence[tuple[Case, Script]]
    ) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "cases": len(chosen), "exact": 0, "wrong": 0, "none": 0, "errors": 0, "calls": 0,
            "changed": 0,
        }  # fmt: skip
        started = time.perf_counter()
        for case, script in chosen:
            try:
                written, turn = self._turn(model, healthy, case, script)
            except Exception as error:  # whatever a peer raises is its result
                counts["errors"] += 1
                counts["none"] += 1
                counts.setdefault("error", f"{type(error).__name__}: {str(error)[:300]}")
                continue
            counts[outcome(case, turn)] += 1
            state = "healthy_call" if turn.calls else turn.state
            lenient: Any = SimpleNamespace(state=state, calls=turn.calls)
            counts["calls"] += is_exact(case, lenient)
            counts["changed"] += list(script.ids) != written
        counts["seconds"] = round(time.perf_counter() - started, 2)
        return counts

    def _turn(
        self, model: ReplayModel, healthy: ReplayModel, case: Case, script: Script
    ) -> tuple[list[int] | None, Any]:
        """What a method writes, where that is ids, and what is read from it."""
        spoken = self.spoken
        name = "unguarded" if self.method in POST_HOC else self.method
        decode = decoder(name.removesuffix("_reference"))
        if name == "recover_reference":
            decode = decoder("recover", healthy)
        request = Request(
            model, spoken.tokenizer, spoken.wire_format, case.toolset, script.prompt,
            len(script.ids) + MORE,
        )  # fmt: skip
        if name == "unguarded":
            written = self._unguarded(model, script, lambda: decode(request))
        else:
            written = decode(request)
        if isinstance(written, str):
            return None, toolguard.read_turn(written, spoken.wire_format, case.toolset)
        turn = spoken.guard(case).read(written)
        if self.method == "repair":
            return written, _repaired(spoken, case, written)
        if self.method == "json_repair" and not turn.state.startswith("healthy"):
            text = spoken.guard(case).vocabulary.text_of(written)
            calls = json_repaired(text, spoken.wire_format, case.toolset)
            return written, SimpleNamespace(state="healthy_call", calls=calls) if calls else turn
        return written, turn

    def _unguarded(
        self, model: ReplayModel, script: Script, decode: Callable[[], Written]
    ) -> Written:
        """What the model writes by itself: three methods read the same."""
        damage = next((k for k, d in self.laid.items() if d is model.damage), "")
        key = (
            self.spoken.wire_format.name, script, damage, model.strength, model.noise, model.seed
        )  # fmt: skip
        if key not in _WRITTEN:
            _WRITTEN[key] = decode()
        return _WRITTEN[key]

    def harm(self, every: int = 1) -> dict[str, Any]:
        """What becomes of prose: texts and tokens that differ, and calls that were made of it.

        Args:
            every: take every Nth text.
        """
        found: dict[str, Any] = {}
        for way in ("spelled", "tokens"):
            counts: dict[str, Any] = {
                "texts": 0,
                "changed": 0,
                "tokens": 0,
                "calls": 0,
                "errors": 0,
            }
            for case, script in islice(_prose(self.spoken, way), 0, None, every):
                model = self.spoken.model([script])
                counts["texts"] += 1
                try:
                    written, turn = self._turn(model, model, case, script)
                except Exception as error:  # the text is lost
                    counts["errors"] += 1
                    counts["changed"] += 1
                    counts["tokens"] += len(script.ids)
                    counts.setdefault("error", f"{type(error).__name__}: {str(error)[:300]}")
                    continue
                same = written == list(script.ids)
                counts["calls"] += bool(turn.calls)
                counts["changed"] += not same
                if not same:
                    text = self.spoken.spell_all(script.ids)
                    counts.setdefault("first", [text, self.spoken.spell_all(written or [])])
                    counts["tokens"] += differing(script.ids, written or [])
            found[way] = counts
        return found


def choose(
    spoken: Subject, cases: Sequence[Case], count: int, seed: int
) -> list[tuple[Case, Script]]:
    """So many cases at random that the format can say: of three, one that needs no call."""
    order = Random(seed).sample(list(cases), len(cases))
    calling = sayable(spoken, [case for case in order if case.calls])
    plain = sayable(spoken, [case for case in order if not case.calls])
    chosen = [next(plain if place % 3 == 2 else calling, None) for place in range(count)]
    return [pair for pair in chosen if pair is not None]


def outcome(case: Case, turn: Any) -> str:
    if is_exact(case, turn):
        return "exact"
    return "wrong" if turn.calls and turn.state == "healthy_call" else "none"


def differing(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens were put in, left out or replaced."""
    blocks = SequenceMatcher(None, list(one), list(other), autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in blocks if kind != "equal")


def _repaired(spoken: Subject, case: Case, written: list[int]) -> Any:
    repair = toolguard.repair(written, case.toolset, spoken.wire_format, tokenizer=spoken.tokenizer)
    taken = accepted_from(repair)
    calls = [SimpleNamespace(**call) for call in taken]
    return SimpleNamespace(state="healthy_call", calls=calls) if calls else repair.before


_CALLS = {
    "hermes": r"<tool_call>(?P<call>.*?)(?:</tool_call>|\Z)",
    "mistral_json": r"\[TOOL_CALLS\](?P<call>.*?)(?:</s>|\Z)",
    "deepseek_v3": r"function<[^>]*>(?P<name>[\w.-]+)\s*```json(?P<arguments>.*?)(?:```|<\W|\Z)",
    "deepseek_v31": r"call\Wbegin\W>(?P<name>[\w.-]+)<[^>]*>(?P<arguments>.*?)(?:<\W|\Z)",
    "harmony": r"functions\.(?P<name>[\w.-]+).*?<\|message\|>(?P<arguments>.*?)(?:<\||\Z)",
    "mistral_args": r"\[TOOL_CALLS\](?P<name>[\w.-]+).*?\[ARGS\](?P<arguments>.*?)(?:\[|</s>|\Z)",
}
"""Where json_repair is given JSON, by format; the others write none."""


def json_repaired(text: str, wire_format: WireFormat, toolset: Toolset) -> list[Any]:
    """What json_repair makes of the calls in a turn; those that satisfy their schemas."""
    if wire_format.name not in _CALLS:
        return []
    made: list[Any] = []
    for found in re.finditer(_CALLS[wire_format.name], text, re.DOTALL):
        groups = found.groupdict()
        value: Any = json_repair.loads(groups.get("call") or groups.get("arguments") or "")
        if "name" in groups:
            value = {"name": groups["name"], "arguments": value}
        made += value if isinstance(value, list) else [value]
    return [
        SimpleNamespace(name=call["name"], arguments=call["arguments"])
        for call in made
        if isinstance(call, dict)
        and call.get("name") in toolset.names
        and isinstance(call.get("arguments"), dict)
        and not toolset.errors(call["name"], call["arguments"])
    ]


def _prose(spoken: Subject, way: str) -> Iterator[tuple[Case, Script]]:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    }}}]  # fmt: skip
    for place, text in enumerate(prose(spoken.wire_format)):
        said = {"role": "user", "content": "?"}
        case = Case(f"prose {place}", "", Toolset.of(tools), (said,), (), None)
        yield case, spoken.script(case, text, spelled=way == "spelled")


def keep(path: Path, tokenizer: str, method: str, found: Mapping[str, Any]) -> None:
    """Puts what was found of a method into the file of a format, in the order of the report."""
    kept = json.loads(path.read_text("utf-8"))["methods"] if path.is_file() else {}
    kept[method] = {"rows": [], "harm": None, **kept.get(method, {}), **found}
    ordered = {name: kept[name] for name in METHODS if name in kept}
    lines = json.dumps({"tokenizer": tokenizer, "methods": ordered}, ensure_ascii=False)
    save(path, lines.replace('{"damage"', '\n{"damage"') + "\n")


if __name__ == "__main__":
    typer.run(main)
