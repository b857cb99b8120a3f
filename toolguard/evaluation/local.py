"""A model at hand, as the subject of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..formats.wire_format import WireFormat
from ..parsing.recognise import recognise
from ..parsing.turn import Turn
from .answer import answer
from .cases import Case
from .forced import Forced
from .load import Source, load_model, load_tokenizer
from .skill import force
from .subject import Mode


class LocalModel:
    """A model of transformers. See `Subject`.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        wire_format: what it writes, or the name of that; its chat template tells unless given.
        reference: for `recover`: see `toolguard.generate`.
        batch: how many turns are decoded side by side.
        max_new_tokens: the longest turn, in tokens.
        temperature, seed: see `toolguard.generate`.

    Raises:
        FormatError: the wire format is unknown, or the tokenizer's is not recognised.
    """

    modes: tuple[Mode, ...] = ("unguarded", "enforce", "recover")
    modes_in: tuple[Mode, ...] = ("unguarded", "enforce")

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        wire_format: WireFormat | str | None = None,
        reference: PreTrainedModel | None = None,
        batch: int = 32,
        max_new_tokens: int = 160,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.reference = model, tokenizer, reference
        if isinstance(wire_format, str):
            wire_format = WireFormat.load(wire_format)
        self.wire_format = wire_format or recognise(tokenizer)
        self.batch = batch
        self.options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed
        }  # fmt: skip

    @classmethod
    def load(cls, model: str, *, base: str | None = None, **options: Any) -> LocalModel:
        """A model from where it lies.

        Args:
            model: a folder, a GGUF file, the folder of a LoRA adapter (peft's or TRL's), a name on
                the hub, or the name of a bundled checkpoint.
            base: what an adapter was trained on, given like `model`; its configuration names that,
                too.
            options: those of `LocalModel`.

        Raises:
            RequestError: there is no such model, it does not load, or an adapter's base is missing.
            FormatError: as `LocalModel` does.
        """
        source = Source.of(model, base)
        return cls(load_model(source), load_tokenizer(source), **options)

    def answer(self, cases: Sequence[Case], mode: Mode) -> Iterator[Turn]:
        """See `Subject.answer`."""
        return self._answer(cases, self.wire_format, mode)

    def answer_in(
        self, cases: Sequence[Case], wire_format: WireFormat, mode: Mode
    ) -> Iterator[Turn]:
        """See `Subject.answer_in`."""
        return self._answer(cases, wire_format, mode, show_tools=False)

    def force(self, cases: Sequence[Case]) -> Iterator[Forced]:
        """See `Subject.force`."""
        return force(self.model, self.tokenizer, cases, self.wire_format)

    def _answer(
        self, cases: Sequence[Case], wire_format: WireFormat, mode: Mode, show_tools: bool = True
    ) -> Iterator[Turn]:
        ways: dict[Mode, dict[str, Any]] = {
            "unguarded": {"policy": "observe", "trace": True},
            "enforce": {"policy": "enforce"},
            "recover": {"policy": "recover", "reference": self.reference},
        }
        return answer(
            self.model,
            self.tokenizer,
            cases,
            batch=self.batch,
            wire_format=wire_format,
            show_tools=show_tools,
            **self.options,
            **ways[mode],
        )
