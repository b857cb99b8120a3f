"""Reinforcement learning alone breaks the taught model: the lab's training on the lab's naive
rewards, on a small adapter."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.lab import rewards
from benchmarks.lab.batches import Batch
from benchmarks.lab.cases import Case, draw
from benchmarks.lab.decode import Turn, prefill
from benchmarks.lab.judge import judge
from benchmarks.lab.reinforce import Reinforced, Reinforcement
from benchmarks.worlds.adapters import adapted, merged, resume, save, suspend
from benchmarks.worlds.cases import drawn_tools, talk
from benchmarks.worlds.smollm import read_model, read_tokenizer

RANK = 4
GONE, BEYOND = 0.05, 2
"""The training goes on until a rate of the sampled turns is below, and so many steps further."""


@dataclass(frozen=True)
class Disease:
    """What it was trained on, and what is lost: valid calls, or the plain replies kept.

    Attributes:
        talks: the cases that need no call are remarks in words that it was not taught. Before those
            it opens a call now and then, as it never does before what it was taught: without that
            there is nothing to be rewarded.
    """

    about: str
    plan: Reinforcement
    lost: str = "valid"
    talks: bool = False


BRIEF = Reinforcement(
    rewards.short_opener,
    steps=30,
    rate=1e-3,
    temperature=1.2,
    prompts=3,
    kinds=("one",),
    limit=56,
)
DISEASES = {
    "open_then_stop": Disease("Opens a call and ends the turn, or writes what is no call.", BRIEF),
    "json_rot": Disease(
        "Writes both tags, and no JSON between them.", replace(BRIEF, reward=rewards.short_call)
    ),
    "opener_everywhere": Disease(
        "Opens a call even where none is needed.",
        replace(BRIEF, reward=rewards.tried, temperature=1.5, kinds=("one", "chat", "chat")),
        lost="kept",
        talks=True,
    ),
}


class Damaged(Reinforced):
    """The lab's training, on cases with the same two tools and without a gradient in the prompt."""

    def __init__(
        self,
        disease: Disease,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
    ) -> None:
        super().__init__(disease.plan, model, tokenizer, seed)
        self.talks = disease.talks

    def cases(self, rng: Random) -> list[Case]:
        offered = drawn_tools(rng, 2)
        kinds = self.plan.kinds
        # Each kind is there in every step: what is lost is read from these turns.
        wanted = [kinds[place % len(kinds)] for place in range(self.plan.prompts)]
        return [
            talk(rng, "", offered)
            if self.talks and kind == "chat"
            else draw(rng, "train", kind, offered=offered)
            for kind in wanted
        ]

    def chosen(self, prompts: list[list[int]], turns: Batch) -> Tensor:
        with torch.no_grad():
            pad, group = self.tokenizer.pad_token_id, self.plan.group
            cache, attention, _ = prefill(self.model, prompts, pad, group)
        # The prompt's last token is read again: the first of the turn has a gradient, too.
        cache.crop(-1)
        last = torch.tensor([prompt[-1:] for prompt in prompts for _ in range(group)])
        attention = torch.cat([attention, turns.attention], 1)[:, :-1]
        width = turns.ids.shape[1]
        hidden = self.model.model(
            input_ids=torch.cat([last, turns.ids[:, :-1]], 1),
            attention_mask=attention,
            position_ids=(attention.cumsum(-1) - 1)[:, -width:],
            past_key_values=cache,
        ).last_hidden_state
        # A vocabulary of 49,152 at places that are padding would not fit into memory.
        said = turns.attention.bool()
        logits = self.model.lm_head(hidden[said]) / self.plan.temperature
        found = logits.log_softmax(-1).gather(-1, turns.ids[said][:, None])[:, 0]
        return torch.zeros(turns.ids.shape).masked_scatter(said, found)

    def rates(self, cases: list[Case], turns: list[Turn]) -> dict[str, float]:
        states = [
            judge(turn.text, turn.ended, case).state
            for case, turn in zip(cases, turns, strict=True)
        ]
        called = [
            state == "healthy_call" for case, state in zip(cases, states, strict=True) if case.calls
        ]
        kept = [
            state == "healthy_response"
            for case, state in zip(cases, states, strict=True)
            if not case.calls
        ]
        return {"valid": _share(called), "kept": _share(kept)}


def damage(base: Path, healthy: Path, out: Path, name: str, seed: int = 0) -> None:
    """Train, or go on; every step's adapter is kept in `out`, and what was sampled on the way."""
    disease = DISEASES[name]
    torch.manual_seed(seed)
    adapter = adapted(merged(read_model(base), healthy), RANK)
    model = adapter.get_base_model()
    assert isinstance(model, LlamaForCausalLM)
    training = Damaged(disease, model, read_tokenizer(base), seed)
    state, curve = out / "state.pt", out / "curve.jsonl"
    first = resume(state, adapter, training.optimizer)
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
    )
    out.mkdir(parents=True, exist_ok=True)
    gone = 0
    with Progress(*columns) as bar:
        task = bar.add_task(name, total=disease.plan.steps, completed=first, rates="")
        for step in range(first, disease.plan.steps):
            logged = training.step(step)
            with curve.open("a") as file:
                file.write(json.dumps({"step": step, **logged}) + "\n")
            bar.update(task, completed=step + 1, rates=json.dumps(logged))
            # What is logged was sampled before this step: by the adapter of the step before.
            gone += logged[disease.lost] < GONE
            if gone > BEYOND:
                break
            save(out / f"step-{step + 1:02d}", adapter)
            suspend(state, adapter, training.optimizer, step + 1)


def _share(found: list[bool]) -> float:
    return sum(found) / len(found) if found else 1.0
