"""The tool parser and the reasoning parser: from requests to guards, and from text to calls."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from openai.types.responses import FunctionTool
from vllm.entrypoints.generate.base.protocol import (
    DeltaMessage,
    ExtractedToolCallInformation,
    ToolCall,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.reasoning.basic_parsers import BaseThinkingReasoningParser
from vllm.sampling_params import StructuredOutputsParams
from vllm.tokenizers import TokenizerLike
from vllm.tool_parsers import ToolParser
from vllm.tool_parsers.abstract_tool_parser import Tool

from ...decoding.guard import Guard
from ...errors import RequestError
from ...formats.nodes import Control
from ...formats.reader import fixed_text
from ...formats.wire_format import WireFormat
from ...grammar.engine import fast_tokenizer
from ...grammar.request import PROMPT_END, reasoning_after
from ...parsing.opening import Opened
from ...parsing.recognise import recognise
from ...tools.toolset import Toolset
from .metrics import POLICY_OFF, RESPONSE_FORMAT, count_unguarded
from .plugin import PARSER
from .reading import Reading
from .request import KEY, NAME, POLICIES, GuardRequest
from .setup import Setup, current

logger = logging.getLogger("vllm.toolguard")

POLICY = "toolguard_policy"
"""In `vllm_xargs`: how a request is guarded: `enforce`, `observe` or `off`."""
OFF = "off"

Request: TypeAlias = ChatCompletionRequest | ResponsesRequest

_NO_TOOLS = Toolset(())


@lru_cache(maxsize=8)
def wire_format(setting: str, tokenizer: TokenizerLike) -> WireFormat:
    """The format that `toolguard:NAME` says, or the tokenizer.

    Raises:
        FormatError, TokenizerError: none is recognised.
    """
    name = setting.removeprefix(PARSER).removeprefix(":")
    return WireFormat.load(name) if name else recognise(fast_tokenizer(tokenizer))


@lru_cache(maxsize=8)
def _checked(setup: Setup, setting: str, tokenizer: TokenizerLike) -> WireFormat:
    """The same, if its turns can end in a server that is set up so."""
    found = wire_format(setting, tokenizer)
    setup.check(found, tokenizer)
    return found


def prompt_end(ids: Sequence[int], tokenizer: TokenizerLike) -> str:
    """The end of a prompt, which tells what it has opened."""
    return tokenizer.decode([*ids[-PROMPT_END:]])


class GuardToolParser(ToolParser):
    """Has the engine guard the requests with tools, and reads their turns.

    Attributes:
        setting: the parser's name on the command line.
    """

    setting = PARSER
    supports_required_and_named = False  # they are written in the model's own format
    engine_based_streaming = True  # `finish_streaming` is called

    def __init__(self, tokenizer: TokenizerLike, tools: list[Tool] | None = None) -> None:
        super().__init__(tokenizer, tools)
        self.setup = current()
        self.format = _checked(self.setup, self.setting, tokenizer)
        self._reading: Reading | None = None

    @cached_property
    def toolset(self) -> Toolset:
        """The tools offered.

        Raises:
            ToolsetError: one of them is malformed.
        """
        return Toolset.of(self._definitions)

    @cached_property
    def _definitions(self) -> list[dict[str, Any]]:
        return [_definition(tool) for tool in self.tools]

    def adjust_request(self, request: Request) -> Request:
        """Tells the engine how to guard the request.

        Raises:
            RequestError: a ValueError, which vLLM answers with HTTP 400; it names the field.
        """
        extra = request.vllm_xargs or {}
        policy = extra.get(POLICY, "enforce")
        if policy not in (*POLICIES, OFF):
            raise RequestError(f"{POLICY}: {policy!r} is none of {', '.join(POLICIES)}, {OFF}")
        if not request.tools:
            return request
        request.skip_special_tokens = False  # some formats' control tokens are special ones
        if policy == OFF:
            count_unguarded(POLICY_OFF)
            return request
        if request.extract_structured_outputs() is not None:
            count_unguarded(RESPONSE_FORMAT)
            logger.warning(
                "toolguard: request %s has a response format of its own, which forbids calls: it "
                "runs without the guard",
                request.request_id,
            )
            return request
        guarded = GuardRequest.checked(
            self.format,
            self._definitions,
            _choice(request),
            request.parallel_tool_calls is not False,
            str(policy),
        )
        tokenizer = self.model_tokenizer
        before = "" if self.setup.in_reasoning else fixed_text(self.format.reasoning.closing)
        guard = guarded.guard(
            tokenizer, tokenizer.all_special_ids, tokenizer.encode(before, add_special_tokens=False)
        )
        _tell_relaxations(guard)
        field, budget = _budget(request)
        if budget is not None:
            try:
                guard.start(budget)  # refuses what not even the shortest turn fits into
            except RequestError as error:
                raise RequestError(str(error).replace("max_new_tokens", field)) from error
        if self.setup.mode == "engine" and policy == "enforce":
            guarded = replace(guarded, policy="observe")
            request.structured_outputs = StructuredOutputsParams(grammar=guard.engine_grammar)
        if self.setup.watches:
            request.vllm_xargs = {**extra, **guarded.to_extra(), NAME: request.request_id}
        return request

    def reading(
        self, request: Request, opened: Opened = "auto", *, thinks: bool = False
    ) -> Reading:
        """Reads a turn of a request; by default its reasoning is content, or another parser's."""
        offered = self.tools and request.tool_choice != "none"
        return Reading(
            self.format,
            self.toolset if offered else _NO_TOOLS,
            opened,
            thinks=thinks,
            guarded=_is_held(request),
        )

    def extract_tool_calls(
        self, model_output: str, request: Request
    ) -> ExtractedToolCallInformation:
        """What a finished turn says."""
        told = self.reading(request).whole(model_output)
        calls = [ToolCall(id=call.id, function=call) for call in told.calls.values()]
        return ExtractedToolCallInformation(
            tools_called=bool(calls), tool_calls=calls, content=told.content or None
        )

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: Request,
    ) -> DeltaMessage | None:
        """What more of a turn says."""
        if self._reading is None:
            self._reading = self.reading(request)
        return self._reading.feed(delta_text).message()

    def finish_streaming(self) -> DeltaMessage | None:
        """What the end of the turn says."""
        return None if self._reading is None else self._reading.finish().message()


class GuardReasoningParser(BaseThinkingReasoningParser):
    """Tells the reasoning of a turn from the rest.

    Attributes:
        setting: the parser's name on the command line.
    """

    setting = PARSER

    def __init__(self, tokenizer: TokenizerLike, *args: Any, **kwargs: Any) -> None:
        self.format = wire_format(self.setting, tokenizer)
        super().__init__(tokenizer, *args, **kwargs)

    @property
    def start_token(self) -> str:
        return self.format.reasoning_opener

    @property
    def end_token(self) -> str:
        closing = self.format.reasoning.closing
        return next((part.text for part in closing if isinstance(part, Control)), "")

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Whether a prompt has closed the reasoning, so that there is none in the turn."""
        end = prompt_end(input_ids, self.model_tokenizer)
        return reasoning_after(end, self.format) in ("none", "reply")

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        """Whether it has ended; also where the turn begins without any."""
        if self.start_token_id not in input_ids:
            return True
        return fixed_text(self.format.reasoning.closing) in prompt_end(
            input_ids, self.model_tokenizer
        )


def __getattr__(name: str) -> Any:
    """`tools:SETTING` and `reasoning:SETTING`: the parsers that `plugin.register` told of."""
    kind, _, setting = name.partition(":")
    bases = {"tools": GuardToolParser, "reasoning": GuardReasoningParser}
    if kind not in bases or not setting:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(bases[kind].__name__, (bases[kind],), {"setting": setting})


def _definition(tool: Any) -> dict[str, Any]:
    """A tool as the chat API has it."""
    if isinstance(tool, FunctionTool):
        return {
            "type": "function",
            "function": tool.model_dump(exclude_none=True, exclude={"type"}),
        }
    return tool.model_dump(exclude_none=True)


def _choice(request: Request) -> str:
    """`auto`, `required`, `none`, or a tool's name."""
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return choice.function.name if hasattr(choice, "function") else choice.name


def _budget(request: Request) -> tuple[str, int | None]:
    """How many tokens the request asks for, and in which field; None: as many as fit."""
    if isinstance(request, ResponsesRequest):
        return "max_output_tokens", request.max_output_tokens
    if request.max_completion_tokens:
        return "max_completion_tokens", request.max_completion_tokens
    return "max_tokens", request.max_tokens


@lru_cache(maxsize=256)  # once for each: the same tools come with request after request
def _tell_relaxations(guard: Guard) -> None:
    for relaxation in guard.relaxations:
        if relaxation.tool:  # what holds for all tools is no news
            logger.warning("toolguard: %s", relaxation)


def _is_held(request: Request) -> bool:
    """Whether the engine holds the turn to its grammar; and to its end, before which what the
    request stops at may cut a call."""
    extra = request.vllm_xargs or {}
    held = KEY in extra and extra.get(POLICY, "enforce") == "enforce"
    return held and not (request.stop or request.stop_token_ids)
