"""What vLLM's servers make of a fixture with toolguard's parsers: one whole text, and its stream.

Runs where vLLM is installed; no engine and no model is started.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from canitoolcall.chunking import ChunkStrategy, split
from canitoolcall.results import Observation, ParsedToolCall, ParseResult
from tokenizers.decoders import DecodeStream
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager
from vllm.tokenizers.hf import get_cached_tokenizer

from toolguard.integrations.vllm import plugin

from .cases import Case
from .ids import Ids

CUTS = (ChunkStrategy("one"), ChunkStrategy("token"), *(ChunkStrategy("rand", s) for s in (1, 2)))

plugin.register()  # as vLLM does in each of its processes
_cached = lru_cache(get_cached_tokenizer)  # and in its server


def served(case: Case, ids: Ids, cuts: Sequence[ChunkStrategy] = CUTS) -> Observation:
    """Both ways of a chat request."""
    try:
        whole = _whole(case, ids)
        streams = {cut.id: _streamed(case, ids, split(ids.ids, cut)) for cut in cuts}
    except Exception as error:  # a server answers HTTP 500, whatever it was
        return Observation(ParseResult(exception=f"{type(error).__name__}: {error}"), {})
    return Observation(whole, streams)


def _whole(case: Case, ids: Ids) -> ParseResult:
    request = _request(case)
    parser = _parser(case, ids, request)
    parser.set_prompt_token_ids(_prompt(case, ids))
    reasoning, content, calls = parser.parse(
        case.fixture.raw_output,
        request,
        enable_auto_tools=True,
        model_output_token_ids=[*ids.ids, *_end(case, ids)],
    )
    made = tuple(ParsedToolCall(call.name, call.arguments) for call in calls or [])
    return ParseResult(content, reasoning, made)


def _streamed(case: Case, ids: Ids, pieces: Sequence[Sequence[int]]) -> ParseResult:
    request = _request(case)
    parser = _parser(case, ids, request)
    prompt = _prompt(case, ids)
    decoding = DecodeStream(prompt, skip_special_tokens=False)  # as in vLLM's detokenizer
    content = reasoning = ""
    calls: dict[int, list[str]] = {}
    for number, piece in enumerate(pieces, 1):
        texts = (decoding.step(ids.tokenizer.backend_tokenizer, token) for token in piece)
        delta = parser.parse_delta(
            "".join(filter(None, texts)),
            [*piece, *_end(case, ids)] if number == len(pieces) else [*piece],
            request,
            prompt_token_ids=prompt,
            finished=number == len(pieces),
        )
        if delta is None:
            continue
        reasoning += delta.reasoning or ""
        content += delta.content or ""
        for call in delta.tool_calls:
            name, arguments = calls.get(call.index, ["", ""])
            name += call.function.name or ""
            calls[call.index] = [name, arguments + (call.function.arguments or "")]
    return ParseResult(content, reasoning, tuple(ParsedToolCall(*call) for call in calls.values()))


def _prompt(case: Case, ids: Ids) -> list[int]:
    return [*ids.tokenizer.encode(case.prompt, add_special_tokens=False)]


def _end(case: Case, ids: Ids) -> list[int]:
    """The token that ended the turn: its text is not shown."""
    return [] if case.fixture.truncated else [ids.tokenizer.eos_token_id]


def _parser(case: Case, ids: Ids, request: ChatCompletionRequest) -> Any:
    setting = f"toolguard:{case.wire_format.name}"
    made = ParserManager.get_parser(
        tool_parser_name=setting,
        reasoning_parser_name=setting if case.wire_format.reasonings else None,
        enable_auto_tools=True,
    )
    return made(_cached(ids.tokenizer), request.tools)


def _request(case: Case) -> ChatCompletionRequest:
    messages = [{"role": "user", "content": "?"}]
    return ChatCompletionRequest(model="m", messages=messages, tools=[*case.fixture.tools] or None)
