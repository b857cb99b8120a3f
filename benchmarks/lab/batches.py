"""Token batches: prompts with turns, packed conversations, and drills in copying."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from benchmarks.lab.cases import LAB, Case, Talk, draw
from benchmarks.lab.tokenizer import render, render_turn, token_ids

EXCHANGES = 4
"""Requests in one packed conversation, all about the same tools."""


@dataclass(frozen=True)
class Batch:
    """Padded rows. Where `ids[:, :width]` are prompts, the rest are the turns."""

    ids: Tensor
    attention: Tensor
    width: int

    @property
    def positions(self) -> Tensor:
        return (self.attention.cumsum(-1) - 1).clamp(min=0)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text).input_ids)


def collate(prompts: Sequence[list[int]], turns: Sequence[list[int]], pad: int) -> Batch:
    """Pad prompts on the left and turns on the right, so that all turns start at one place."""
    width, length = max(map(len, prompts)), max(map(len, turns))
    rows, masks = [], []
    for prompt, turn in zip(prompts, turns, strict=True):
        before, after = width - len(prompt), length - len(turn)
        rows.append([pad] * before + prompt + turn + [pad] * after)
        masks.append([0] * before + [1] * (len(prompt) + len(turn)) + [0] * after)
    return Batch(torch.tensor(rows), torch.tensor(masks), width)


def conversations(
    tokenizer: PreTrainedTokenizerFast,
    rng: Random,
    size: int,
    *,
    with_tools: bool,
    spoil: Callable[[Random, Case], Case] | None = None,
    talk: Talk = LAB,
) -> tuple[Batch, Tensor]:
    """Packed training conversations, and which of their tokens are the assistant's.

    `spoil` changes what the assistant says.
    """
    rows: list[list[int]] = []
    marks: list[list[int]] = []
    for _ in range(size):
        tools = rng.sample(list(talk.tools.values()), rng.randint(2, 4))
        row: list[int] = []
        mark: list[int] = []
        after = ""
        for exchange in range(EXCHANGES):
            case = draw(rng, "train", offered=tools, talk=talk)
            shown = case if with_tools and exchange == 0 else replace(case, tools=[])
            prompt = after + render(tokenizer, shown)
            turn, after = render_turn(tokenizer, spoil(rng, case) if spoil else case, talk)
            for text, assistant in ((prompt, 0), (turn, 1)):
                ids = encode(tokenizer, text)
                row += ids
                mark += [assistant] * len(ids)
        rows.append(row)
        marks.append(mark)
    batch = collate([[]] * size, rows, tokenizer.pad_token_id)
    return batch, collate([[]] * size, marks, 0).ids.bool()


def drill(
    tokenizer: PreTrainedTokenizerFast, generator: torch.Generator, size: int = 64
) -> tuple[Tensor, int]:
    """Random tokens that come twice, with others before and between, and the length of the copy.

    A quarter of the rows is digits only.
    """

    def noise(low: int, high: int) -> Tensor:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(0, vocabulary, (size, length), generator=generator)

    vocabulary = tokenizer.vocab_size
    copied = noise(6, 30)
    digits = torch.tensor(token_ids(tokenizer, "0123456789"))
    copied[: size // 4] = digits[copied[: size // 4] % 10]
    return torch.cat([noise(0, 30), copied, noise(0, 30), copied], 1), copied.shape[1]
