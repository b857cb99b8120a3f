"""Has a model answer cases, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..integrations.transformers.generate import generate
from ..parsing.turn import Turn
from .case import Case


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    *,
    batch: int = 32,
    max_new_tokens: int = 160,
    **options: Any,
) -> Iterator[Turn]:
    """The turns with which a model answers cases, one per case, in order.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        cases: what to answer.
        batch: how many cases are decoded side by side.
        max_new_tokens: the longest turn, in tokens.
        options: for `toolguard.generate`, such as `policy`.

    Raises:
        ToolguardError: as `toolguard.generate`, when the batch in question is reached.
    """
    for first in range(0, len(cases), batch):
        part = cases[first : first + batch]
        yield from generate(
            model,
            tokenizer,
            [case.messages for case in part],
            [case.toolset for case in part],
            max_new_tokens=max_new_tokens,
            **options,
        )
