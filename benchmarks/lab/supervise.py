"""Supervised training: drills in copying first, then next-token loss on right turns, or on turns
that are spoiled on purpose."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2ForCausalLM

from benchmarks.lab.batches import conversations, drill
from benchmarks.lab.cases import LAB, Case, Talk

PROMPT_WEIGHT = 0.3
PROMPT_SHARE = 0.5
"""Share of the prompt's tokens that are scored in a step; the vocabulary head is expensive."""


@dataclass(frozen=True)
class Supervision:
    """A supervised training: `drills` steps of copying, the rest on conversations, of which the
    first `bare` are without tool definitions, and one in ten afterwards.

    The rate goes through a cycle in the drills, and through one of `cycle` steps in the
    conversations, which is cut short by a straight `cooldown` over the last steps of all. `spoil`
    changes what the assistant says. `half` precision is slow on processors that lack it.
    """

    steps: int
    rate: float
    cycle: int
    cooldown: int = 0
    drills: int = 0
    bare: int = 0
    batch: int = 16
    half: bool = True
    spoil: Callable[[Random, Case], Case] | None = None


class Supervised:
    """One training in progress: its state is that of model and optimizer."""

    def __init__(
        self,
        plan: Supervision,
        model: Qwen2ForCausalLM | LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        talk: Talk = LAB,
    ) -> None:
        self.plan, self.model, self.tokenizer, self.seed = plan, model, tokenizer, seed
        self.talk = talk
        self.optimizer = torch.optim.AdamW(
            model.parameters(), plan.rate, betas=(0.9, 0.98), weight_decay=0.01
        )

    def step(self, number: int) -> dict[str, float]:
        """One update, a function of the seed and the number of the step; returns what to log."""
        plan = self.plan
        drilling = number < plan.drills
        done = number if drilling else number - plan.drills
        length = plan.drills if drilling else plan.cycle
        for group in self.optimizer.param_groups:
            cooling = min(1.0, (plan.steps - number) / plan.cooldown) if plan.cooldown else 1.0
            group["lr"] = plan.rate * one_cycle(done / length) * cooling
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.half):
            losses = self.drill(number) if drilling else self.converse(number, done < plan.bare)
        loss = losses["answer_loss"] + PROMPT_WEIGHT * losses.get("prompt_loss", torch.tensor(0.0))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def drill(self, number: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        ids, copied = drill(self.tokenizer, generator)
        hidden = self.model.model(input_ids=ids).last_hidden_state[:, -copied:-1]
        logits = self.model.lm_head(hidden).flatten(0, 1)
        return {"answer_loss": cross_entropy(logits, ids[:, 1 - copied :].flatten())}

    def converse(self, number: int, bare: bool) -> dict[str, Tensor]:
        rng = Random(f"{self.seed} {number}")
        batch, answer = conversations(
            self.tokenizer,
            rng,
            self.plan.batch,
            with_tools=not bare and rng.random() < 0.9,
            spoil=self.plan.spoil,
            talk=self.talk,
        )
        generator = torch.Generator().manual_seed(rng.getrandbits(32))
        targets, answer = batch.ids[:, 1:], answer[:, 1:]
        prompt = batch.attention[:, 1:].bool() & ~answer
        prompt &= torch.rand(prompt.shape, generator=generator) < PROMPT_SHARE
        # Padding stands on the right, where a causal model does not see it: no mask is needed.
        hidden = self.model.model(input_ids=batch.ids).last_hidden_state[:, :-1]
        return {
            name: cross_entropy(self.model.lm_head(hidden[mask]), targets[mask])
            for name, mask in (("answer_loss", answer), ("prompt_loss", prompt))
        }


def one_cycle(done: float, warm: float = 0.05) -> float:
    """Up in a straight line, then down along a cosine."""
    if done < warm:
        return 0.04 + 0.96 * done / warm
    return 0.5 + 0.5 * math.cos(math.pi * (done - warm) / (1 - warm))
