"""The parser of whole turns, which vLLM's servers ask for reasoning, content and calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from vllm.entrypoints.generate.base.protocol import DeltaMessage, FunctionCall
from vllm.parser.abstract_parser import DelegatingParser, Parser
from vllm.parser.metrics import record_tool_parser_invocation

from ...decoding.guard import end_texts
from ...formats.wire_format import WireFormat
from ...parsing.opening import Opened, opened_by
from ...tools.toolset import Toolset
from .reading import Reading
from .tool_parser import GuardReasoningParser, GuardToolParser, Request, prompt_end


def guarding(composed: type[Parser] | None) -> type[Parser] | None:
    """The same of toolguard's own two parsers, or of one where there is no other."""
    if composed is None or not issubclass(composed, DelegatingParser):
        return composed
    kinds = {
        GuardToolParser: composed.tool_parser_cls,
        GuardReasoningParser: composed.reasoning_parser_cls,
    }
    if all(parser is None or issubclass(parser, ours) for ours, parser in kinds.items()):
        return type(GuardParser.__name__, (GuardParser, composed), {})
    return composed


_end_texts = lru_cache(maxsize=8)(end_texts)  # it reads the chat template


class GuardParser(DelegatingParser):
    """Reads a turn in one go: what its calls are follows from where its reasoning ends, and both
    from what its prompt has opened."""

    always_adjust_request = True  # a broken model writes calls with tool_choice "none", too

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._opened: Opened = "auto"
        self._reading: Reading | None = None
        self._last: int | None = None  # the last token, as far as it is known

    @cached_property
    def format(self) -> WireFormat:
        """The wire format of its turns."""
        parser = self.tool_parser or self.reasoning_parser
        assert isinstance(parser, GuardToolParser | GuardReasoningParser)
        return parser.format

    def adjust_request(self, request: Request) -> Request:
        """Has the control tokens shown that a turn is read by, and the engine guard it."""
        special = {*self.model_tokenizer.all_special_tokens}
        if special.intersection(self.format.controls):
            request.skip_special_tokens = False
        return super().adjust_request(request)

    def set_prompt_token_ids(self, prompt_token_ids: Sequence[int]) -> None:
        """Takes the prompt, whose end tells what it has opened."""
        end = prompt_end(prompt_token_ids, self.model_tokenizer)
        self._opened = opened_by(end, self.format)

    def parse(
        self,
        model_output: str,
        request: Request,
        enable_auto_tools: bool = False,
        model_output_token_ids: Sequence[int] = (),
    ) -> tuple[str | None, str | None, list[FunctionCall] | None]:
        """A finished turn: its reasoning, its content and its calls."""
        self._last = next(reversed(model_output_token_ids), None)
        told = self._read(request).whole(self._without_end(model_output), self._ended)
        self._count(request, bool(told.calls), streamed=False)
        return told.reasoning or None, told.content or None, [*told.calls.values()]

    def parse_delta(
        self,
        delta_text: str,
        delta_token_ids: list[int],
        request: Request,
        prompt_token_ids: list[int] | None = None,
        *,
        finished: bool,
    ) -> DeltaMessage | None:
        """What more of a turn is told."""
        if self._reading is None:
            if prompt_token_ids is not None:
                self.set_prompt_token_ids(prompt_token_ids)
            self._reading = self._read(request)
        self._last = next(reversed(delta_token_ids), self._last)
        told = self._reading.feed(self._without_end(delta_text) if finished else delta_text)
        if finished:
            told.add(self._reading.finish(self._ended))
        self._count(request, bool(told.calls), streamed=True)
        if not request.include_reasoning:
            told.reasoning = ""
        return told.message()

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """How many of a turn's tokens are reasoning."""
        parser = self.reasoning_parser
        if isinstance(parser, GuardReasoningParser) and self._opened is True:
            token_ids = [parser.start_token_id, *token_ids]
        return super().count_reasoning_tokens(token_ids)

    def _read(self, request: Request) -> Reading:
        thinks = self.reasoning_parser is not None
        if isinstance(self.tool_parser, GuardToolParser):
            return self.tool_parser.reading(request, self._opened, thinks=thinks)
        return Reading(self.format, Toolset(()), self._opened, thinks=thinks)

    @property
    def _ended(self) -> bool:
        """Whether the model ended the turn, and not a budget or a stop string."""
        if self._last is None or self._last == self.model_tokenizer.eos_token_id:
            return True
        ends = _end_texts(self.format, self.model_tokenizer)
        return self.model_tokenizer.decode([self._last]) in ends

    def _without_end(self, text: str) -> str:
        """A text without the end token, which a client may ask to be shown."""
        ends = _end_texts(self.format, self.model_tokenizer)
        end = next((end for end in ends if text.endswith(end)), "")
        return text.removesuffix(end)

    def _count(self, request: Request, called: bool, streamed: bool) -> None:
        """As vLLM does around the parsers of calls."""
        if self.tool_parser is not None:
            record_tool_parser_invocation(
                is_tool_called=called, is_streaming=streamed, request=request
            )
