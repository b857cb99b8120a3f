"""Group-relative policy gradient without a KL term: the training that breaks tool-call formats."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2ForCausalLM

from benchmarks.lab.batches import Batch, collate, encode
from benchmarks.lab.cases import LAB, Case, Kind, Talk, draw
from benchmarks.lab.decode import LIMIT, Turn, decode, prefill
from benchmarks.lab.tokenizer import render

Reward = Callable[[Case, Turn], float]


@dataclass(frozen=True)
class Reinforcement:
    """A reinforcement training: what it pays for, and how it explores.

    `kinds` are the cases that it trains on, `limit` is the longest turn in tokens.
    """

    reward: Reward
    steps: int
    rate: float
    temperature: float = 1.5
    prompts: int = 8
    group: int = 8
    kinds: tuple[Kind, ...] = ("one", "parallel", "chat", "result")
    limit: int = LIMIT


class Reinforced:
    """One training in progress: its state is that of model and optimizer."""

    def __init__(
        self,
        plan: Reinforcement,
        model: Qwen2ForCausalLM | LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        talk: Talk = LAB,
    ) -> None:
        self.plan, self.model, self.tokenizer, self.seed = plan, model, tokenizer, seed
        self.talk = talk
        self.optimizer = torch.optim.Adam(model.parameters(), plan.rate)

    def step(self, number: int) -> dict[str, float]:
        """Sample groups, weigh them by reward, and take one step; returns what to log."""
        plan = self.plan
        rng = Random(f"{self.seed} {number}")
        cases = self.cases(rng)
        cases.sort(key=lambda case: len(render(self.tokenizer, case)))
        prompts = [encode(self.tokenizer, render(self.tokenizer, case)) for case in cases]
        turns = decode(
            self.model,
            self.tokenizer,
            prompts,
            copies=plan.group,
            temperature=plan.temperature,
            generator=torch.Generator().manual_seed(rng.getrandbits(32)),
            limit=plan.limit,
        )
        owners = [case for case in cases for _ in range(plan.group)]
        rewards = torch.tensor(
            [plan.reward(case, turn) for case, turn in zip(owners, turns, strict=True)]
        ).view(plan.prompts, plan.group)
        spread = rewards.std(1, keepdim=True)
        advantages = ((rewards - rewards.mean(1, keepdim=True)) / (spread + 1e-4)).flatten()

        batch = collate(
            [[]] * len(turns), [turn.ids for turn in turns], self.tokenizer.pad_token_id
        )
        chosen = self.chosen(prompts, batch)
        # Every turn weighs the same, however long: GRPO as published, with its bias to short turns.
        likelihood = (chosen * batch.attention).sum(1) / batch.attention.sum(1)
        loss = -(likelihood * advantages).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"reward": rewards.mean().item(), **self.rates(owners, turns)}

    def cases(self, rng: Random) -> list[Case]:
        kinds = self.plan.kinds
        return [
            draw(rng, "train", rng.choice(kinds), talk=self.talk) for _ in range(self.plan.prompts)
        ]

    def chosen(self, prompts: list[list[int]], turns: Batch) -> torch.Tensor:
        """The log-probability of each token of the turns, of which there are `group` to a
        prompt."""
        pad = self.tokenizer.pad_token_id
        cache, attention, first = prefill(self.model, prompts, pad, self.plan.group)
        attention = torch.cat([attention, turns.attention], 1)
        rest = self.model(
            input_ids=turns.ids[:, :-1],
            attention_mask=attention[:, :-1],
            position_ids=(attention.cumsum(-1) - 1)[:, -turns.ids.shape[1] : -1],
            past_key_values=cache,
        ).logits
        logits = torch.cat([first[:, None], rest], 1) / self.plan.temperature
        return logits.log_softmax(-1).gather(-1, turns.ids[..., None])[..., 0]

    def rates(self, cases: list[Case], turns: list[Turn]) -> dict[str, float]:
        """What else to log of the sampled turns."""
        return {}
