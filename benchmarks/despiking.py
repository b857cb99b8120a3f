"""Which cure of legal spikes earns its place: exact calls and plain replies by checkpoint and cure.

`python -m benchmarks.despiking [--prompts 520]`, greedy, under the policy `recover`:

- `none`: no de-spiking.
- `cap`: (a) the odds of each control token are capped at what 99% of the healthy steps at that
  place do not exceed. The profile is recorded on cases used nowhere else.
- `calibration`: (a) as toolguard has it (`toolguard/policy/calibrate.py`): at the start of a turn,
  the odds of the opener are mapped to the healthy ones of the same rank, by two profiles recorded
  on those cases.
- `formula`: (b) as issue 4 has it: for control tokens, log p - max(0, log p - log p_ref).
- `odds`: (b) as toolguard has it (`toolguard/policy/despike.py`): the odds of structure against
  content are held to the reference's.
- `self`: (c) the same model is asked for the call in another format, in which it has no control
  token, and decides call or no call there. Tried with three formats: the one whose odds of a call
  tell best on `healthy` and fresh cases whether one is needed, at the threshold that tells best.

The reference is `healthy`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoTokenizer

import toolguard
from benchmarks.drift import fresh_cases
from benchmarks.lab.cases import read_cases
from benchmarks.recovery import CALIBRATION, LOST, SEED, load, toolguard_cases
from toolguard.decoding.state import GuardState
from toolguard.decoding.structure import control_tokens
from toolguard.integrations.transformers import decode
from toolguard.policy.despike import Despiker

CURES = ("none", "cap", "calibration", "formula", "odds", "self")
QUANTILE = 0.99
FORMS = {
    "pythonic": "[name(argument=...)]",
    "json": '{"name": ...}',
    "fenced": "```json\n{...}\n```",
}
HERMES = '<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>'


class Formula(Despiker):
    """Control tokens are no likelier than the reference finds them."""

    def __call__(
        self,
        states: Sequence[GuardState],
        rows: Sequence[int],
        raw: torch.Tensor,
        logits: torch.Tensor,
    ) -> None:
        controls = control_tokens(states[0].guard.vocabulary, logits)
        masked = logits[rows].float()
        own = raw.float().log_softmax(-1).masked_fill(masked.isinf(), float("-inf"))
        theirs = self._reference(rows).float()[:, : own.shape[1]].log_softmax(-1)
        logits[rows] = torch.where(controls, torch.minimum(own, theirs), own).to(logits.dtype)


def profile_cap(profile: toolguard.Profile) -> type[Despiker]:
    """A despiker that holds control tokens to a profile's quantiles."""

    class ProfileCap(Despiker):
        def __call__(
            self,
            states: Sequence[GuardState],
            rows: Sequence[int],
            raw: torch.Tensor,
            logits: torch.Tensor,
        ) -> None:
            for row in rows:
                state = states[row]
                others = logits[row].float().clone()
                ids = {text: token for token, text in state.guard.control_texts.items()}
                others[[*ids.values()]] = float("-inf")
                content = others.logsumexp(-1)
                if content.isinf():
                    continue
                for text, token in ids.items():
                    if text in profile.controls:
                        mass = profile.quantile(text, state.region, state.position, QUANTILE)
                        if mass < 1:  # not NaN: nothing was recorded there
                            odds = torch.tensor(mass / (1 - mass)).log()
                            cap = (content + odds).to(logits.dtype)
                            logits[row, token] = torch.minimum(logits[row, token], cap)

    return ProfileCap


def main(
    prompts: Annotated[int, typer.Option(min=1, max=640)] = 520,
    checkpoints: Annotated[list[str] | None, typer.Option("--checkpoint")] = None,
    cures: Annotated[list[str] | None, typer.Option("--cure")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A row a line, as it is done.")] = False,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))
    cases = toolguard.held_out()[:prompts]
    calibrating = toolguard_cases(fresh_cases(CALIBRATION, SEED, read_cases()))
    reference = load("healthy")
    names = checkpoints or [name for name in toolguard.checkpoint_names() if name not in LOST]
    wanted = cures or CURES
    rows: list[dict[str, Any]] = []

    def answer(model: Any, chosen: Sequence[toolguard.Case], **options: Any) -> list[Any]:
        return list(toolguard.answer(model, tokenizer, chosen, batch=65, **options))

    def recorded(model: Any) -> tuple[toolguard.Profile, float]:
        """A model's profile, and how well its odds of a call tell whether one is needed."""
        odds = []
        profile = toolguard.Profile.of(toolguard.WireFormat.load("hermes"), tokenizer)
        for turn in answer(model, calibrating, policy="observe", trace=True):
            profile.add(turn.report.steps)
            odds.append([step.odds for step in turn.report.steps if step.odds is not None][-1])
        needed = torch.tensor([bool(case.calls) for case in calibrating])
        return profile, round(auc(torch.tensor(odds), needed), 4)

    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("calibration", total=len(names) * len(wanted))
        profile, _ = recorded(reference)
        form, limit = best_form(reference, tokenizer, calibrating)
        kinds = {"cap": profile_cap(profile), "formula": Formula, "odds": Despiker}
        for name in names:
            model = load(name)
            for cure in wanted:
                bars.update(bar, description=f"{name}, {cure}")
                options: dict[str, Any] = {"policy": "recover"}
                row: dict[str, Any] = {"checkpoint": name, "cure": cure}
                if cure == "self":
                    odds = call_odds(model, tokenizer, cases, form)
                    needed = torch.tensor([bool(case.calls) for case in cases])
                    row |= {"form": form, "auc": round(auc(odds, needed), 4)}
                    calls = (odds > limit).tolist()
                    parts = {
                        choice: iter(
                            answer(
                                model,
                                [c for c, d in zip(cases, calls, strict=True) if d == decided],
                                tool_choice=choice,
                                **options,
                            )
                        )
                        for choice, decided in (("auto", True), ("none", False))
                    }
                    turns = [next(parts["auto" if call else "none"]) for call in calls]
                elif cure in ("none", "calibration"):
                    if cure == "calibration":
                        own, row["auc"] = recorded(model)
                        options["calibration"] = toolguard.Calibration(own, profile)
                    turns = answer(model, cases, **options)
                else:
                    before, decode.Despiker = decode.Despiker, kinds[cure]  # type: ignore[misc]
                    turns = answer(model, cases, reference=reference, **options)
                    decode.Despiker = before  # type: ignore[misc]
                score = toolguard.score(cases, turns, 0.0)
                row |= {"exact": score.exact_match, "no_call_kept": score.no_call_kept}
                rows.append(row)
                bars.advance(bar)
                if as_json:
                    print(json.dumps(row), flush=True)
    if not as_json:
        Console().print(table(rows, wanted))


def best_form(model: Any, tokenizer: Any, cases: Sequence[toolguard.Case]) -> tuple[str, float]:
    """The format that tells best whether a call is needed, and the threshold that tells best."""
    needed = torch.tensor([bool(case.calls) for case in cases])
    found = {form: call_odds(model, tokenizer, cases, form) for form in FORMS}
    best = max(found, key=lambda form: auc(found[form], needed))
    odds = found[best]
    right: Callable[[torch.Tensor], float] = lambda at: float(((odds > at) == needed).sum())  # noqa: E731
    return best, float(max(odds, key=right))


@torch.inference_mode()
def call_odds(
    model: Any, tokenizer: Any, cases: Sequence[toolguard.Case], form: str
) -> torch.Tensor:
    """The log-odds that the turn begins as a call in that format does, control tokens left out."""
    controls = torch.zeros(len(tokenizer), dtype=torch.bool)
    controls[[*tokenizer.get_added_vocab().values()]] = True
    first = FORMS[form][0]
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    begins = torch.tensor([text.startswith(first) for text in vocabulary]) & ~controls
    found = []
    for case in cases:
        prompt = tokenizer.apply_chat_template(
            case.messages,
            tools=[*case.toolset.definitions],
            add_generation_prompt=True,
            tokenize=False,
        )
        assert HERMES in prompt
        asked = tokenizer(prompt.replace(HERMES, FORMS[form]), return_tensors="pt")["input_ids"]
        logits = model(asked).logits[0, -1].float().masked_fill(controls, float("-inf"))
        found.append(logits[begins].logsumexp(-1) - logits[~begins].logsumexp(-1))
    return torch.stack(found)


def auc(odds: torch.Tensor, needed: torch.Tensor) -> float:
    """How often a case that needs a call has larger odds of one than a case that needs none."""
    above = odds[needed].unsqueeze(1) - odds[~needed].unsqueeze(0)
    return float(((above > 0).float() + 0.5 * (above == 0).float()).mean())


def table(rows: Sequence[dict[str, Any]], cures: Sequence[str]) -> Table:
    shown = Table(title="Exact calls / plain replies kept, %")
    for heading in ("checkpoint", *cures):
        shown.add_column(heading)
    for name in dict.fromkeys(row["checkpoint"] for row in rows):
        cells = {
            row["cure"]: f"{100 * row['exact']:.1f} / {100 * row['no_call_kept']:.1f}"
            for row in rows
            if row["checkpoint"] == name
        }
        shown.add_row(name, *(cells[cure] for cure in cures))
    return shown


if __name__ == "__main__":
    typer.run(main)
