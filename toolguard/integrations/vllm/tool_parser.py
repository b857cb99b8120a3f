"""The tool parser and the reasoning parser: from requests to guards, and from text to calls."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from openai.types.responses import FunctionTool
from vllm.entrypoints.generate.base.protocol import (
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    ExtractedToolCallInformation,
    FunctionCall,
    ToolCall,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.parser.abstract_parser import DelegatingParser
from vllm.reasoning.basic_parsers import BaseThinkingReasoningParser
from vllm.renderers.chat_utils import make_tool_call_id
from vllm.sampling_params import StructuredOutputsParams
from vllm.tokenizers import TokenizerLike
from vllm.tool_parsers import ToolParser
from vllm.tool_parsers.abstract_tool_parser import Tool

from ...decoding.guard import end_texts
from ...errors import RequestError
from ...formats.nodes import Control
from ...formats.reader import fixed_text
from ...formats.wire_format import WireFormat
from ...grammar.engine import fast_tokenizer
from ...grammar.request import PROMPT_END, reasoning_after
from ...parsing.events import (
    ArgumentsDelta,
    CallEnd,
    CallName,
    CallStart,
    Event,
    ReasoningDelta,
    TextDelta,
    TurnEnd,
)
from ...parsing.opening import Known, shown
from ...parsing.parser import TurnParser
from ...parsing.read import read_turn
from ...parsing.recognise import recognise
from ...parsing.turn import Turn
from ...repair.repair import repair
from ...tools.toolset import Toolset
from .metrics import POLICY_OFF, RESPONSE_FORMAT, count_turn, count_unguarded
from .plugin import PARSER
from .request import KEY, NAME, POLICIES, GuardRequest
from .setup import current

logger = logging.getLogger("vllm.toolguard")

POLICY = "toolguard_policy"
"""In `vllm_xargs`: how a request is guarded: `enforce`, `observe` or `off`."""
OFF = "off"

Request: TypeAlias = ChatCompletionRequest | ResponsesRequest

# vLLM asks the parsers of a request with tool_choice "none" only then, and a broken model writes
# calls there too.
DelegatingParser.always_adjust_request = True


@lru_cache(maxsize=8)
def wire_format(setting: str, tokenizer: TokenizerLike) -> WireFormat:
    """The format that `toolguard:NAME` says, or the tokenizer.

    Raises:
        FormatError, TokenizerError: none is recognised.
    """
    name = setting.removeprefix(PARSER).removeprefix(":")
    return WireFormat.load(name) if name else recognise(fast_tokenizer(tokenizer))


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
        self.format = wire_format(self.setting, tokenizer)
        self.setup.check(self.format, tokenizer)
        self._stream: _Stream | None = None
        self.last: int | None = None  # the last token of the turn, as far as it is known

    @cached_property
    def toolset(self) -> Toolset:
        """The tools offered.

        Raises:
            ToolsetError: one of them is malformed.
        """
        return Toolset.of(self._definitions)

    @cached_property
    def _ends(self) -> list[str]:
        return end_texts(self.format, self.model_tokenizer)

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
        budget = _budget(request)
        if budget is not None:
            guard.start(budget)  # refuses what not even the shortest turn fits into
        if self.setup.mode == "engine" and policy == "enforce":
            guarded = replace(guarded, policy="observe")
            request.structured_outputs = StructuredOutputsParams(grammar=guard.engine_grammar)
        if self.setup.watches:
            request.vllm_xargs = {**extra, **guarded.to_extra(), NAME: request.request_id}
        return request

    def extract_tool_calls(
        self, model_output: str, request: Request
    ) -> ExtractedToolCallInformation:
        """What a finished turn says."""
        written = read_turn(
            self._without_end(model_output), self.format, self.toolset, ended=self.ended
        )
        turn = self.mended(written)
        count_turn(written, turn)
        calls = [
            ToolCall(
                id=_id(number, turn.raw),
                function=FunctionCall(name=call.name, arguments=_json(call.arguments)),
            )
            for number, call in enumerate(turn.calls)
        ]
        if calls or not turn.faults or self.is_said(turn) or self.is_cut(request):
            content = self._thoughts(turn) + turn.text
        else:
            content = turn.raw
        return ExtractedToolCallInformation(
            tools_called=bool(calls), tool_calls=calls, content=content or None
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
        if request.tool_choice == "none" or not request.tools:
            return DeltaMessage(content=delta_text) if delta_text else None
        if self._stream is None:
            self._stream = _Stream(self, request)
        self.last = delta_token_ids[-1] if delta_token_ids else self.last
        return self._stream.feed(delta_text)

    def finish_streaming(self) -> DeltaMessage | None:
        """What the end of the turn says."""
        return None if self._stream is None else self._stream.finish()

    @property
    def ended(self) -> bool:
        """Whether the model ended the turn, and not a budget or a stop string."""
        if self.last is None or self.last == self.model_tokenizer.eos_token_id:
            return True
        return self.model_tokenizer.decode([self.last]) in self._ends

    def is_cut(self, request: Request) -> bool:
        """Whether a turn stops that the engine held to its grammar up to there: what there is of a
        call is no text."""
        return _is_held(request) and not self.ended

    def _without_end(self, text: str) -> str:
        for end in self._ends:
            text = text.removesuffix(end)
        return text

    def mended(self, turn: Turn) -> Turn:
        """The turn, or what of it can be proved if it has no call and is faulty."""
        if not turn.faults or turn.calls:
            return turn
        return repair(turn.raw, self.toolset, self.format, ended=self.ended).after

    def _thoughts(self, turn: Turn) -> str:
        """The reasoning of a turn, which is content where no reasoning parser took it."""
        return turn.reasoning and turn.reasoning.join(map(fixed_text, self.format.reasoning))

    def is_said(self, turn: Turn) -> bool:
        """Whether a turn says no more than its text: all else is control tokens."""
        rest = turn.raw.replace(turn.text, "", 1)
        return not turn.reasoning and self.format.blank.fullmatch(rest) is not None


class _Stream:
    """One turn as it is streamed.

    Text is told as it comes, until a call begins; what comes then waits until it is known to be
    one. A call that the engine guards is told as it comes, too; any other once it is sound.
    """

    def __init__(self, parser: GuardToolParser, request: Request) -> None:
        self._parser, self._request = parser, request
        self._guarded = _is_held(request)
        self._turn = TurnParser(parser.format, parser.toolset, opened=False)
        self._known: Known | None = None  # what the turn shows that the prompt had opened
        self._text = ""
        self._said = ""  # the prose that was told
        self._thought = self._thinking = False  # whether reasoning was told; is being
        self._in_calls = False
        self._numbers: dict[int, int] = {}  # of the calls that were told of
        self._waiting: dict[int, str] = {}  # arguments whose name is to come
        self._argued: set[int] = set()

    def feed(self, text: str) -> DeltaMessage | None:
        self._text += text
        if self._known is None:
            self._known = shown(self._text, self._parser.format, final=False)
            if self._known:
                return self._begin_again(self._known)
        return _message(*self._told(self._turn.feed(text)))

    def _begin_again(self, opened: Known) -> DeltaMessage | None:
        """The turn shows what the prompt had opened: text that was told was that."""
        self._turn = TurnParser(self._parser.format, self._parser.toolset, opened=opened)
        said, self._said = self._said, ""
        self._thought = self._thinking = opened is True and bool(said)
        content, calls = self._told(self._turn.feed(self._text))
        if opened == "reply":
            self._said = content
        return _message(content.removeprefix(said), calls)

    def finish(self) -> DeltaMessage | None:
        *events, end = self._turn.finish(self._parser.ended)
        assert isinstance(end, TurnEnd)
        turn = end.turn
        content, calls = self._told(events)
        mended = turn if self._numbers else self._parser.mended(turn)
        count_turn(turn, mended)
        if self._numbers:
            content += self._thoughts_over()
            if turn.text.startswith(self._said):
                content += turn.text[len(self._said) :]
            return _message(content, calls)
        for number, call in enumerate(mended.calls):
            calls.append(_started(number, call.name, _id(number, mended.raw)))
            calls.append(_argued(number, _json(call.arguments)))
        known = self._parser.is_said(turn) or self._parser.is_cut(self._request)
        if not calls and turn.faults and not known:
            content += turn.raw[self._end_in(turn.raw) :]
        return _message(content, calls)

    def _end_in(self, raw: str) -> int:
        """Where in a turn the end of what was told of it stands."""
        said, closer = self._said.strip(), fixed_text(self._parser.format.reasoning.closing)
        if said:
            return raw.find(said) + len(said)
        if self._thinking:
            return raw.find(closer) if closer in raw else len(raw)
        return raw.find(closer) + len(closer) if self._thought else 0

    def _thoughts_over(self) -> str:
        """The tag that ends the reasoning, if that was being told."""
        over = fixed_text(self._parser.format.reasoning.closing) if self._thinking else ""
        self._thinking = False
        return over

    def _told(self, events: Iterable[Event]) -> tuple[str, list[DeltaToolCall]]:
        content, calls = "", list[DeltaToolCall]()
        for event in events:
            match event:
                case ReasoningDelta(text):
                    opening = fixed_text(self._parser.format.reasoning.opening)
                    content += text if self._thinking else opening + text
                    self._thought = self._thinking = True
                case TextDelta(text) if not self._in_calls:
                    content += self._thoughts_over() + text
                    self._said += text
                case CallStart():
                    self._in_calls = True
                case CallName(index, name) if self._guarded:
                    calls.append(self._start(index, name))
                    if index in self._waiting:
                        calls.append(self._argue(index, self._waiting.pop(index)))
                case ArgumentsDelta(index, text) if index in self._numbers:
                    calls.append(self._argue(index, text))
                case ArgumentsDelta(index, text):
                    self._waiting[index] = self._waiting.get(index, "") + text
                case CallEnd(index, call):
                    if index not in self._numbers:
                        calls.append(self._start(index, call.name))
                    if index not in self._argued:
                        calls.append(self._argue(index, _json(call.arguments)))
        return content + (self._thoughts_over() if calls else ""), calls

    def _start(self, index: int, name: str) -> DeltaToolCall:
        number = self._numbers[index] = len(self._numbers)
        return _started(number, name, _id(number, self._text))

    def _argue(self, index: int, text: str) -> DeltaToolCall:
        self._argued.add(index)
        return _argued(self._numbers[index], text)


class GuardReasoningParser(BaseThinkingReasoningParser):
    """Tells the reasoning of a turn from the rest.

    Attributes:
        setting: the parser's name on the command line.
    """

    setting = PARSER

    def __init__(self, tokenizer: TokenizerLike, *args: Any, **kwargs: Any) -> None:
        self.format = wire_format(self.setting, tokenizer)
        self._opening, self._closing = map(fixed_text, self.format.reasoning)
        self._opened = False  # by the prompt
        self._told = 0  # how much of the reasoning was told
        self._over: bool | None = None  # of a turn that is streamed: whether its reasoning is
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
        return self._after(input_ids) in ("none", "reply")

    def adjust_initial_state_from_prompt(self, prompt_token_ids: Sequence[int]) -> None:
        self._opened = self._after(prompt_token_ids) == "open"

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        """Whether it has ended; also where the turn begins without any."""
        if self._over is not None:
            return self._over
        if not (self._opened or self.start_token_id in input_ids):
            return True
        return self._closing in self.model_tokenizer.decode([*input_ids[-PROMPT_END:]])

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        if self.end_token_id in input_ids:
            return input_ids[input_ids.index(self.end_token_id) + 1 :]
        return input_ids

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> DeltaMessage | None:
        """What more of the reasoning is known; what may be a part of a tag waits."""
        if not self._opened and self._opening.startswith(
            current_text.strip()[: len(self._opening)]
        ):
            self._over = False
            if not current_text.strip().startswith(self._opening):
                return None
        thoughts, content = self._split(current_text, self._opened)
        self._over = content is not None
        if thoughts is None:
            return DeltaMessage(content=content)
        if not self._over:
            thoughts = thoughts[: len(thoughts) - _begun(thoughts, self._closing)]
        news, self._told = thoughts[self._told :], max(self._told, len(thoughts))
        if not news and not content:
            return None
        return DeltaMessage(reasoning=news or None, content=content or None)

    def extract_reasoning(
        self, model_output: str, request: Request
    ) -> tuple[str | None, str | None]:
        """The reasoning of a finished turn, and what follows it."""
        opened = self._opened or shown(model_output, self.format) is True
        thoughts, content = self._split(model_output, opened)
        return (thoughts or "").strip() or None, content or None

    def _split(self, text: str, opened: bool) -> tuple[str | None, str | None]:
        """The reasoning of a turn, and what follows it; None of it where there is none, or it has
        not begun."""
        if text.lstrip().startswith(self._opening):
            text = text.lstrip().removeprefix(self._opening)
        elif not opened:
            return None, text
        thoughts, closed, content = text.partition(self._closing)
        return thoughts, content if closed else None

    def _after(self, prompt: Sequence[int]) -> str:
        end = self.model_tokenizer.decode([*prompt[-PROMPT_END:]])
        return reasoning_after(end, self.format)


def _begun(text: str, tag: str) -> int:
    """How much at the end of a text may be the beginning of a tag."""
    return max((size for size in range(1, len(tag)) if text.endswith(tag[:size])), default=0)


def _told_prompt(parser: DelegatingParser, prompt_token_ids: Sequence[int]) -> None:
    """vLLM tells the parser of a whole turn its prompt, which passes it on to nobody."""
    if isinstance(parser.reasoning_parser, GuardReasoningParser):
        parser.reasoning_parser.adjust_initial_state_from_prompt(prompt_token_ids)


DelegatingParser.set_prompt_token_ids = _told_prompt

_parse = DelegatingParser.parse


def _told_ids(parser: DelegatingParser, *args: Any, **options: Any) -> Any:
    """The same of the ids of a whole turn."""
    ids = options.get("model_output_token_ids")
    if ids and isinstance(parser.tool_parser, GuardToolParser):
        parser.tool_parser.last = ids[-1]
    return _parse(parser, *args, **options)


DelegatingParser.parse = _told_ids


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


def _budget(request: Request) -> int | None:
    """How many tokens the request asks for; None: as many as fit."""
    if isinstance(request, ResponsesRequest):
        return request.max_output_tokens
    return request.max_completion_tokens or request.max_tokens


def _is_held(request: Request) -> bool:
    """Whether the engine holds the turn to its grammar."""
    extra = request.vllm_xargs or {}
    return KEY in extra and extra.get(POLICY, "enforce") == "enforce"


def _message(content: str, calls: list[DeltaToolCall]) -> DeltaMessage | None:
    if not content and not calls:
        return None
    return DeltaMessage(content=content or None, tool_calls=calls)


_CALL_ID = re.compile(r"functions\.[^\s:]+:\d+")  # Kimi's are part of its turns


def _id(number: int, text: str) -> str:
    """The id of a call: what the model wrote, or a new one."""
    written = _CALL_ID.findall(text)
    return written[number] if number < len(written) else make_tool_call_id()


def _json(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _started(number: int, name: str, call_id: str) -> DeltaToolCall:
    return DeltaToolCall(
        index=number, id=call_id, type="function", function=DeltaFunctionCall(name=name)
    )


def _argued(number: int, text: str) -> DeltaToolCall:
    return DeltaToolCall(index=number, function=DeltaFunctionCall(arguments=text))
