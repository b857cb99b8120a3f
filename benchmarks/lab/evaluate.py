"""Measure a model on held-out cases: what it does unguarded, and where its control mass goes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from benchmarks.lab.batches import collate, encode
from benchmarks.lab.cases import Case
from benchmarks.lab.decode import Turn, decode
from benchmarks.lab.judge import STATES, Verdict, judge
from benchmarks.lab.regions import REGIONS, regions, value_tokens
from benchmarks.lab.tokenizer import CONTROL, render, render_answer, token_ids

Mass = dict[str, dict[str, float]]
"""Mean control mass: region -> control token -> probability."""


@dataclass(frozen=True)
class Measured:
    """Rates between 0 and 1, greedy and unguarded.

    `validity` and `exact` are shares of the cases that need a call, `no_call_kept` of the others.
    `skill` is the share of calls whose names and values all come out right when the model is given
    the structure and may not choose a control token: what a guard could hope to recover.
    """

    validity: float
    exact: float
    no_call_kept: float
    reply_exact: float
    skill: float
    states: dict[str, float]
    reference_mass: Mass
    rollout_mass: Mass


def measure(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    cases: Sequence[Case],
    batch: int = 104,
) -> Measured:
    by_length = sorted(cases, key=lambda case: len(render(tokenizer, case)))
    calling: list[tuple[Case, Turn, Verdict]] = []
    plain: list[tuple[Case, Turn, Verdict]] = []
    states = dict.fromkeys(STATES, 0)
    skilled: list[bool] = []
    reference, rollout = MeanMass(), MeanMass()
    for start in range(0, len(by_length), batch):
        part = by_length[start : start + batch]
        prompts = [encode(tokenizer, render(tokenizer, case)) for case in part]
        for case, turn in zip(part, decode(model, tokenizer, prompts), strict=True):
            verdict = judge(turn.text, turn.ended, case)
            states[verdict.state] += 1
            (calling if case.calls else plain).append((case, turn, verdict))
            rollout.add(regions(tokenizer, turn.ids), turn.mass)
        skilled += teacher_force(model, tokenizer, part, prompts, reference)
    return Measured(
        validity=mean([verdict.state == "healthy_call" for _, _, verdict in calling]),
        exact=mean([verdict.exact for _, _, verdict in calling]),
        no_call_kept=mean([verdict.state == "healthy_response" for _, _, verdict in plain]),
        reply_exact=mean([turn.text == case.reply for case, turn, _ in plain]),
        skill=mean(skilled),
        states={state: round(count / len(cases), 4) for state, count in states.items()},
        reference_mass=reference.result(),
        rollout_mass=rollout.result(),
    )


@torch.inference_mode()
def teacher_force(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    cases: Sequence[Case],
    prompts: Sequence[list[int]],
    mass: "MeanMass",
) -> list[bool]:
    """Feed the right turns: add their control mass to `mass`, and tell which calls the model would
    have got right."""
    answers = [render_answer(tokenizer, case) for case in cases]
    turns = [encode(tokenizer, answer) for answer in answers]
    batch = collate(prompts, turns, tokenizer.pad_token_id)
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.attention, position_ids=batch.positions
    ).last_hidden_state[:, batch.width - 1 : -1]
    logits = model.lm_head(hidden)
    control = torch.tensor(token_ids(tokenizer, CONTROL))
    control_mass = logits.softmax(-1)[..., control]
    choices = logits.index_fill(-1, control, -torch.inf).argmax(-1)
    skilled = []
    for row, (case, answer, turn) in enumerate(zip(cases, answers, turns, strict=True)):
        mass.add(regions(tokenizer, turn), control_mass[row, : len(turn)])
        if case.calls:
            right = choices[row, : len(turn)] == torch.tensor(turn)
            skilled.append(bool(right[torch.tensor(value_tokens(tokenizer, answer))].all()))
    return skilled


class MeanMass:
    """A running mean of the control mass by region."""

    def __init__(self) -> None:
        self._total: dict[str, Tensor] = defaultdict(lambda: torch.zeros(len(CONTROL)))
        self._count: dict[str, int] = defaultdict(int)

    def add(self, where: Sequence[str], mass: Tensor) -> None:
        for region, row in zip(where, mass, strict=True):
            self._total[region] += row
            self._count[region] += 1

    def result(self) -> Mass:
        return {
            region: {
                token: round(value, 6)
                for token, value in zip(
                    CONTROL, (self._total[region] / self._count[region]).tolist(), strict=True
                )
            }
            for region in REGIONS
            if self._count[region]
        }


def mean(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 4)
