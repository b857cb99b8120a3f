"""The guard in Outlines: as a logits processor, and as an output type.

Outlines puts a prompt that is a string into the chat template once more, without tools. For prompts
that are rendered with their tools already: `model.type_adapter.has_chat_template = False`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from outlines.processors import OutlinesLogitsProcessor
from outlines.types import CFG
from transformers import PreTrainedTokenizerBase

from ..decoding.guard import Guard
from ..errors import TokenizerError
from ..formats.wire_format import WireFormat
from ..grammar.request import Reasoning
from ..parsing.opening import OPENED
from ..parsing.read import read_turn
from ..parsing.recognise import recognise
from ..parsing.turn import Turn
from .transformers.generate import Tools
from .transformers.processor import GuardLogitsProcessor


class GuardProcessor(OutlinesLogitsProcessor):
    """Holds what Outlines generates to the guard, and watches it: for
    `SteerableGenerator.from_processor(model, processor)`, any number of times.

    It serves Outlines' `Transformers` models, with a prompt or a batch of them.

    Args:
        guards: one guard for all prompts, or one per prompt of the batch.
        max_new_tokens: what the generator is called with, too: every turn ends closed within it.

    Raises:
        RequestError: not even the shortest legal turn fits into the budget.
    """

    def __init__(self, guards: Guard | Sequence[Guard], *, max_new_tokens: int) -> None:
        super().__init__("torch")
        self._guards, self._max_new_tokens = guards, max_new_tokens
        self.reset()

    def reset(self) -> None:
        """Begins anew; Outlines calls it before it generates."""
        self._processor = GuardLogitsProcessor(self._guards, max_new_tokens=self._max_new_tokens)

    def process_logits(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """See `GuardLogitsProcessor.__call__`."""
        return self._processor(input_ids, logits)

    def turns(self) -> list[Turn]:
        """The turns of the last generation, with their reports: what Outlines returns is text
        without special tokens, in which calls may be hidden."""
        return self._processor.turns()


class ToolCalls(CFG):
    """An output type: one whole assistant turn in a model's wire format, with calls of these tools.

    `outlines.Generator(model, ToolCalls(tools, tokenizer), backend="llguidance")` holds turns to
    the same grammar as a `Guard`, by Outlines' own masks: nothing is watched, and a turn may be cut
    off by its budget. Read what it returns with `read`.

    Args:
        tools: the tools offered (see `toolguard.Toolset.of`).
        tokenizer: the model's fast tokenizer.
        wire_format: a format or its name; by default it is recognised (`toolguard.recognise`).
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        reasoning: what the prompt has opened (see `Guard.compile`).

    Raises:
        TokenizerError: the format's control tokens are special, so that Outlines would leave them
            out of the text: use `GuardProcessor`.
        FormatError, ToolsetError, RequestError: see `toolguard.errors`.
    """

    def __init__(
        self,
        tools: Tools,
        tokenizer: PreTrainedTokenizerBase,
        *,
        wire_format: WireFormat | str | None = None,
        tool_choice: str = "auto",
        parallel: bool = True,
        reasoning: Reasoning = "auto",
    ) -> None:
        self.guard = Guard.compile(
            wire_format or recognise(tokenizer),
            tools,
            tokenizer,
            tool_choice=tool_choice,
            parallel=parallel,
            reasoning=reasoning,
        )
        special = set(tokenizer.all_special_ids) & set(self.guard.control_texts)
        hidden = [self.guard.control_texts[token] for token in sorted(special)]
        lost = [text for text in hidden if text not in self.guard.format.ends]
        if lost:
            raise TokenizerError(
                f"{', '.join(lost)} of {self.guard.format.name} are special tokens, which Outlines "
                "leaves out of the text it returns: use GuardProcessor, which keeps the tokens"
            )
        super().__init__(self.guard.engine_grammar)

    def read(self, text: str) -> Turn:
        """What a turn that was generated says."""
        opened = OPENED[self.guard.reasoning]
        return read_turn(text, self.guard.format, self.guard.toolset, opened=opened)
