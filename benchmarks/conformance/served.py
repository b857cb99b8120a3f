"""What vLLM's servers make of a fixture with toolguard's parsers: one whole text, and its stream.

Runs where vLLM is installed; no engine and no model is started.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from canitoolcall.chunking import ChunkStrategy, split
from canitoolcall.results import Observation, ParsedToolCall, ParseResult
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager

from toolguard.integrations.vllm import plugin

from .cases import Case
from .ids import Ids

CUTS = (ChunkStrategy("one"), ChunkStrategy("token"), *(ChunkStrategy("rand", s) for s in (1, 2)))

plugin.register()  # as vLLM does in each of its processes


def served(case: Case, ids: Ids) -> Observation:
    """Both ways of a chat request."""
    try:
        whole = _whole(case, ids)
        streams = {cut.id: _streamed(case, ids, split(ids.ids, cut)) for cut in CUTS}
    except Exception as error:  # a server answers HTTP 500, whatever it was
        return Observation(ParseResult(exception=f"{type(error).__name__}: {error}"), {})
    return Observation(whole, streams)


def _whole(case: Case, ids: Ids) -> ParseResult:
    request = _request(case)
    reasoning, content, calls = _parser(case, ids, request).parse(
        case.fixture.raw_output, request, enable_auto_tools=True
    )
    made = tuple(ParsedToolCall(call.name, call.arguments) for call in calls or [])
    return ParseResult(content, reasoning, made)


def _streamed(case: Case, ids: Ids, pieces: Sequence[Sequence[int]]) -> ParseResult:
    request = _request(case)
    parser = _parser(case, ids, request)
    prompt = ids.tokenizer.encode(case.prompt, add_special_tokens=False)
    content = reasoning = told = ""
    calls: dict[int, list[str]] = {}
    seen: list[int] = []
    for number, piece in enumerate(pieces, 1):
        seen += piece
        last = number == len(pieces)
        text = ids.tokenizer.decode(seen, skip_special_tokens=False)
        if text.endswith("\ufffd") and not last:
            text = told  # in the middle of a character
        delta = parser.parse_delta(
            text[len(told) :], [*piece], request, prompt_token_ids=prompt, finished=last
        )
        told = text
        if delta is None:
            continue
        reasoning += delta.reasoning or ""
        content += delta.content or ""
        for call in delta.tool_calls:
            name, arguments = calls.get(call.index, ["", ""])
            name += call.function.name or ""
            calls[call.index] = [name, arguments + (call.function.arguments or "")]
    return ParseResult(content, reasoning, tuple(ParsedToolCall(*call) for call in calls.values()))


def _parser(case: Case, ids: Ids, request: ChatCompletionRequest) -> Any:
    setting = f"toolguard:{case.wire_format.name}"
    made = ParserManager.get_parser(
        tool_parser_name=setting,
        reasoning_parser_name=setting if case.wire_format.reasoning_closer else None,
        enable_auto_tools=True,
    )
    return made(ids.tokenizer, request.tools)


def _request(case: Case) -> ChatCompletionRequest:
    messages = [{"role": "user", "content": "?"}]
    return ChatCompletionRequest(model="m", messages=messages, tools=[*case.fixture.tools] or None)
