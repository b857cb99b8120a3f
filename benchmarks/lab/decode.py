"""Batched decoding with a key-value cache, that keeps the control mass of every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
)

from benchmarks.lab.batches import collate
from benchmarks.lab.tokenizer import CONTROL, spell

LIMIT = 112
"""Most tokens in a turn; the longest right one has fewer than 100."""


@dataclass(frozen=True)
class Turn:
    """What the model wrote. `mass` has one row a token: its own probability of each of `CONTROL`
    (of those that its tokenizer has) before that token, at temperature 1."""

    ids: list[int]
    text: str
    ended: bool
    mass: Tensor


def prefill(
    model: Qwen2ForCausalLM | LlamaForCausalLM,
    prompts: Sequence[list[int]],
    pad: int,
    copies: int = 1,
) -> tuple[DynamicCache, Tensor, Tensor]:
    """Read every prompt once: cache, attention mask and next-token logits for `copies` of each."""
    batch = collate(prompts, [[]] * len(prompts), pad)
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.attention,
        position_ids=batch.positions,
        logits_to_keep=1,
    )
    cache: DynamicCache = output.past_key_values
    cache.batch_repeat_interleave(copies)
    attention = batch.attention.repeat_interleave(copies, 0)
    return cache, attention, output.logits[:, -1].repeat_interleave(copies, 0)


@torch.inference_mode()
def decode(
    model: Qwen2ForCausalLM | LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[list[int]],
    *,
    copies: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    limit: int = LIMIT,
) -> list[Turn]:
    """Write `copies` turns after each prompt; greedy where the temperature is zero."""
    vocabulary = tokenizer.get_vocab()
    control = torch.tensor([vocabulary[t] for t in CONTROL if t in vocabulary], dtype=torch.long)
    end = tokenizer.eos_token_id
    cache, attention, logits = prefill(model, prompts, tokenizer.pad_token_id, copies)
    rows: list[list[int]] = [[] for _ in logits]
    masses: list[list[Tensor]] = [[] for _ in logits]
    active = torch.arange(len(rows))
    for _ in range(limit):
        mass = logits.softmax(-1)[:, control]
        if temperature:
            weights = (logits / temperature).softmax(-1)
            chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        else:
            chosen = logits.argmax(-1)
        for row, token, row_mass in zip(active.tolist(), chosen.tolist(), mass, strict=True):
            rows[row].append(token)
            masses[row].append(row_mass)
        going = chosen != end
        if not going.any():
            break
        if not going.all():
            active, chosen, attention = active[going], chosen[going], attention[going]
            cache.batch_select_indices(going.nonzero()[:, 0])
        attention = torch.cat([attention, torch.ones_like(attention[:, :1])], 1)
        logits = model(
            input_ids=chosen[:, None],
            attention_mask=attention,
            position_ids=attention.sum(1, keepdim=True) - 1,
            past_key_values=cache,
        ).logits[:, -1]
    turns = []
    for ids, row_masses in zip(rows, masses, strict=True):
        ended = ids[-1] == end
        text = spell(tokenizer, ids[:-1] if ended else ids)
        turns.append(Turn(ids, text, ended, torch.stack(row_masses)))
    return turns
