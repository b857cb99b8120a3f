"""`toolguard.vllm`: guarded turns from vLLM's `LLM`, without a server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from ...errors import RequestError
from ...formats.wire_format import WireFormat
from ...grammar.engine import fast_tokenizer
from ...parsing.recognise import recognise
from ...parsing.turn import Turn
from ...tools.toolset import ToolLike, Toolset
from .environment import MODE
from .request import NAME, GuardRequest

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams

__all__ = ["chat"]

Messages: TypeAlias = Sequence[Mapping[str, Any]]

MAX_TOKENS = 512
"""The budget of a turn, unless the sampling parameters say another."""


@overload
def chat(
    llm: LLM, messages: Messages, tools: Toolset | Sequence[ToolLike], **options: Any
) -> Turn: ...
@overload
def chat(
    llm: LLM, messages: Sequence[Messages], tools: Toolset | Sequence[ToolLike], **options: Any
) -> list[Turn]: ...
def chat(
    llm: LLM,
    messages: Messages | Sequence[Messages],
    tools: Toolset | Sequence[ToolLike],
    *,
    sampling_params: SamplingParams | None = None,
    tool_choice: str = "auto",
    parallel: bool = True,
    wire_format: WireFormat | str | None = None,
    policy: str = "enforce",
    **options: Any,
) -> Turn | list[Turn]:
    """Has vLLM write the assistant's next turn, guarded.

    Args:
        llm: the model. Nothing has to be said when it is made: vLLM finds toolguard by itself.
        messages: a conversation (OpenAI-style messages), or a list of conversations: a batch.
        tools: the tools offered in all of them (see `Toolset.of`).
        sampling_params: how to sample, for one turn each; greedy, with up to 512 tokens, unless
            given. A turn that `max_tokens` ends is cut off there: it is an `unfinished_turn`,
            and no call that was not written in full is one of its calls.
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        wire_format: a format or its name; by default it is recognised (`toolguard.recognise`).
        policy: `enforce`, or `observe`, which changes no logit.
        options: passed to `LLM.chat` (`chat_template_kwargs={"enable_thinking": False}`, ...).

    Returns:
        The turn, without a report; for a list of conversations, the list of their turns.

    Raises:
        RequestError: a parameter is out of its range, or this engine cannot be guarded as it is
            set up; the message says what to change.
        FormatError, ToolsetError, TokenizerError: see `toolguard.errors`.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    from ...grammar.request import PROMPT_END
    from .processor import GuardProcessor
    from .setup import Setup

    if not messages:
        raise RequestError("no messages: give a conversation, or a list of conversations")
    setup = Setup.of(llm.llm_engine.vllm_config, os.environ.get(MODE, ""))
    tokenizer = fast_tokenizer(llm.get_tokenizer())
    if wire_format is None:
        wire_format = recognise(tokenizer)
    elif isinstance(wire_format, str):
        wire_format = WireFormat.load(wire_format)
    offered = Toolset.of(tools).definitions
    request = GuardRequest.checked(wire_format, offered, tool_choice, parallel, policy)
    if sampling_params is None:
        sampling_params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    params = sampling_params.clone()
    if params.n != 1:
        raise RequestError(f"n={params.n}: one turn a conversation; list it {params.n} times")
    setup.check(wire_format, tokenizer)
    stops = [*tokenizer.all_special_ids, *(params.stop_token_ids or [])]
    if setup.mode == "engine" and policy == "enforce":
        grammar = request.guard(tokenizer, stops).engine_grammar
        params.structured_outputs = StructuredOutputsParams(grammar=grammar)
        request = replace(request, policy="observe")
    if setup.watches:
        params.extra_args = {**(params.extra_args or {}), **request.to_extra(), NAME: "offline"}
        GuardProcessor.validate_params(params)
    one = isinstance(messages[0], Mapping)
    outputs = llm.chat(
        [[*messages]] if one else [[*each] for each in messages],
        params,
        tools=[*request.tools.definitions] or None,
        **{"use_tqdm": False, **options},
    )
    turns = []
    for output in outputs:
        guard = request.guard(tokenizer, stops, output.prompt_token_ids[-PROMPT_END:])
        turns.append(guard.read(output.outputs[0].token_ids))
    return turns[0] if one else turns
