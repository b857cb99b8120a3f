"""What keeps `recover` below `healthy`: the places where its calls leave the right ones.

`python -m benchmarks.limits [--checkpoint json_rot] [--temperature 0]` takes the held-out prompts
that need a call and that `healthy` answers exactly, has a damaged checkpoint answer them under
`recover` with `healthy` as the reference, and gives both models the right turn, token by token,
spelled as the chat template spells it, under the guard's mask. A miss is counted once, at the first
token where the turn is no longer the right one:

- `reply` or `call`: it made no call where one belongs, or did anything else at the turn's start;
- `content`: in a name, key or value, it wrote other content: what the model knows;
- `early end`, `late end`: content stops where it should go on, or goes on;
- `structure`: other punctuation or control tokens, such as another argument or none;
- `calls`: after a call, another one or none;
- `taken back`: the guard took the right beginning back itself.

Beside them, of the right token there, the median probability that the model gives it among the
legal ones, that the guard leaves it, and that `healthy` gives it. `right turn` is the median
log-likelihood of the whole right turn among legal tokens, in nats, by the damaged checkpoint and by
`healthy`, over the misses and over the other prompts. `expected` is what the turns should come to
at that temperature: the mean over all of these prompts of the product of the guard's probabilities
of the right tokens (greedy: 1 or 0); `content alone` counts only those of content against content,
as if structure could not go wrong. Nothing is taken back there, and another spelling of the right
call counts as wrong.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoTokenizer

import toolguard
from benchmarks.lab.batches import encode
from benchmarks.lab.cases import Case, read_cases
from benchmarks.lab.tokenizer import render, render_answer
from benchmarks.recovery import load
from toolguard.decoding.batch import apply, fill
from toolguard.decoding.state import GuardState
from toolguard.decoding.structure import structure_tokens
from toolguard.evaluation.score import is_exact
from toolguard.policy.despike import Despiker
from toolguard.policy.enforce import hold

LIMITED = ("json_rot", "open_then_stop")
MODELS = ("own", "guard", "healthy")
BATCH = 65


@dataclass(frozen=True)
class Forced:
    """The right turn of a case, fed to a damaged model and to `healthy`.

    Attributes:
        ids: its tokens.
        states: where the guard stands before each of them.
        own, guarded, healthy: log-probabilities among legal tokens, of shape [tokens, vocabulary]:
            the damaged model's, those that the guard leaves to sample from, and `healthy`'s.
        structure: which tokens of the vocabulary carry structure.
    """

    ids: list[int]
    states: list[GuardState]
    own: torch.Tensor
    guarded: torch.Tensor
    healthy: torch.Tensor
    structure: torch.Tensor

    def right(self, scores: torch.Tensor) -> torch.Tensor:
        """The log-probability of each right token."""
        return scores.gather(1, torch.tensor(self.ids).unsqueeze(1)).squeeze(1)

    def chance(self, temperature: float, content: bool) -> float:
        """The probability that the guard lets all of it be sampled, or all of its content."""
        scores = self.guarded
        if content:
            kept = ~self.structure[torch.tensor(self.ids)]
            scores = scores.masked_fill(self.structure, float("-inf"))[kept]
            ids = torch.tensor(self.ids)[kept]
        else:
            ids = torch.tensor(self.ids)
        if not temperature:
            return float((scores.argmax(-1) == ids).all())
        chosen = (scores / temperature).log_softmax(-1).gather(1, ids.unsqueeze(1))
        return float(chosen.sum().exp())


def main(
    prompts: Annotated[int, typer.Option(min=1, max=640, help="Held-out prompts.")] = 520,
    checkpoints: Annotated[list[str] | None, typer.Option("--checkpoint")] = None,
    temperature: float = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="With every miss.")] = False,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    reference = load("healthy")
    held_out = list(zip(toolguard.held_out(), read_cases(), strict=True))[:prompts]
    asked = [pair for pair in held_out if pair[0].calls]
    names = checkpoints or LIMITED
    found: dict[str, Any] = {}
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("healthy", total=len(asked) * (1 + 2 * len(names)))

        def answer(model: Any, **options: Any) -> list[toolguard.Turn]:
            turns = []
            for turn in toolguard.answer(
                model, tokenizer, [case for case, _ in asked], batch=BATCH, policy="recover",
                temperature=temperature, seed=0, **options,
            ):  # fmt: skip
                turns.append(turn)
                bars.advance(bar)
            return turns

        sound = [
            is_exact(case, turn) for (case, _), turn in zip(asked, answer(reference), strict=True)
        ]
        for name in names:
            bars.update(bar, description=name)
            model = load(name)
            turns = answer(model, reference=reference)
            misses: list[dict[str, Any]] = []
            forced: list[tuple[Forced, bool]] = []
            for (case, read), turn, known in zip(asked, turns, sound, strict=True):
                if known:
                    right = force(model, reference, tokenizer, case, read)
                    exact = is_exact(case, turn)
                    forced.append((right, exact))
                    if not exact:
                        misses.append({"id": case.id, **miss(right, turn)})
                bars.advance(bar)
            found[name] = {
                "prompts": len(forced),
                "misses": len(misses),
                "expected": mean([right.chance(temperature, False) for right, _ in forced]),
                "content_alone": mean([right.chance(temperature, True) for right, _ in forced]),
                "right_turn": {
                    group: {
                        "own": median_sum([r.right(r.own) for r, e in forced if e == exact]),
                        "healthy": median_sum(
                            [r.right(r.healthy) for r, e in forced if e == exact]
                        ),
                    }
                    for group, exact in (("misses", False), ("others", True))
                },
                "kinds": kinds(misses),
                "cases": misses,
            }
    if as_json:
        print(json.dumps(found))
        return
    for name, row in found.items():
        title = (
            f"{name}, T {temperature:g}: {row['misses']} misses of {row['prompts']}, expected "
            f"{row['expected']:.1%}, content alone {row['content_alone']:.1%}"
        )
        table = Table(title=title, caption=f"right turn, nats: {row['right_turn']}")
        for heading in ("first wrong at", "misses", "p model", "p guard", "p healthy"):
            table.add_column(heading, justify="right")
        for kind, values in row["kinds"].items():
            table.add_row(kind, *map(str, values.values()))
        Console().print(table)


@torch.inference_mode()
def force(model: Any, reference: Any, tokenizer: Any, case: toolguard.Case, read: Case) -> Forced:
    """Feeds a case's right turn to both models."""
    prompt = encode(tokenizer, render(tokenizer, read))
    ids = encode(tokenizer, render_answer(tokenizer, read))
    guard = toolguard.Guard.compile("hermes", case.toolset, tokenizer)
    state = guard.start(160)
    states = []
    for token in ids:
        states.append(state.copy())
        assert state.accept(token)
    fed = torch.tensor([[*prompt, *ids[:-1]]])
    own, theirs = (
        each(fed, logits_to_keep=len(ids)).logits[0].float() for each in (model, reference)
    )
    bitmask = fill(states)
    guarded, legal, healthy = own.clone(), own.clone(), theirs.clone()
    hold(states, guarded, Despiker(lambda rows: theirs[[*rows]]))
    apply(bitmask, legal)
    apply(bitmask, healthy)
    return Forced(
        ids,
        states,
        legal.log_softmax(-1),
        guarded.log_softmax(-1),
        healthy.log_softmax(-1),
        structure_tokens(guard.vocabulary, own),
    )


def miss(right: Forced, turn: toolguard.Turn) -> dict[str, Any]:
    """Where a turn leaves the right one, and how likely the right token was there."""
    pairs = zip(right.ids, turn.ids, strict=False)
    place = next(at for at, (ours, theirs) in enumerate(pairs) if ours != theirs)
    wanted, made = right.ids[place], turn.ids[place]
    state = right.states[place]
    spell = state.guard.vocabulary.text_of
    assert turn.report is not None
    taken = [
        found.step
        for found in turn.report.interventions
        if found.action == "rollback" and found.token_id == wanted
    ]
    scores = {"own": right.own, "guard": right.guarded, "healthy": right.healthy}
    chances = {
        name: round(float(right.right(each)[place].exp()), 4) for name, each in scores.items()
    }
    kind = "taken back" if place in taken else kind_of(right, place, made)
    return {
        "kind": kind,
        "position": state.position,
        "before": spell(right.ids[max(0, place - 6) : place]),
        "right": spell([wanted]),
        "made": spell([made]),
        **chances,
    }


def kind_of(right: Forced, place: int, made: int) -> str:
    state = right.states[place]
    if state.position == "start":
        return "reply"
    if state.position == "closed":
        return "calls"
    match bool(right.structure[right.ids[place]]), bool(right.structure[made]):
        case True, True:
            return "structure"
        case False, False:
            return "content"
        case False, True:
            return "early end"
        case _:
            return "late end"


def kinds(misses: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in misses:
        grouped[each["kind"]].append(each)
    return {
        kind: {
            "misses": len(group),
            **{
                name: round(median(m[name] for m in group), 3)
                for name in ("own", "guard", "healthy")
            },
        }
        for kind, group in sorted(grouped.items(), key=lambda item: -len(item[1]))
    }


def mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def median_sum(values: Iterable[torch.Tensor]) -> float | None:
    sums = [float(each.sum()) for each in values]
    return round(median(sums), 3) if sums else None


if __name__ == "__main__":
    typer.run(main)
