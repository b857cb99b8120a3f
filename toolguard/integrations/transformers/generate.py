"""`toolguard.generate`: conversations and tools in, finished turns out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, overload

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...decoding.guard import Guard, turn_ends
from ...errors import RequestError
from ...formats.wire_format import WireFormat
from ...grammar.engine import fast_tokenizer
from ...grammar.request import reasoning_after
from ...parsing.recognise import recognise
from ...parsing.turn import Turn
from ...policy.calibrate import Calibration
from ...policy.history import cleaned
from ...policy.recover import Recovery
from ...report.report import Policy
from ...tools.toolset import ToolLike, Toolset
from .decode import Decoder, Row
from .sample import Sampler

Messages: TypeAlias = Sequence[Mapping[str, Any]]
Tools: TypeAlias = Toolset | Sequence[ToolLike]

_POLICIES = ("observe", "enforce", "recover")


@overload
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    tools: Tools,
    **options: Any,
) -> Turn: ...
@overload
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Messages],
    tools: Tools | Sequence[Tools],
    **options: Any,
) -> list[Turn]: ...
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages | Sequence[Messages],
    tools: Tools | Sequence[Tools],
    *,
    max_new_tokens: int = 512,
    policy: Policy = "enforce",
    tool_choice: str = "auto",
    parallel: bool = True,
    wire_format: WireFormat | str | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    reference: PreTrainedModel | None = None,
    calibration: Calibration | None = None,
    trace: bool = False,
    show_tools: bool = True,
    **template: Any,
) -> Turn | list[Turn]:
    """Generates the assistant's next turn, guarded.

    Renders the chat template, recognises the wire format, and decodes in a loop of its own: what
    the grammar forces is fed along with the sampled token, in one forward pass, and kept wherever
    the model agrees; the ids are those that one pass per token would have given.

    Args:
        model: a causal language model, on any device.
        tokenizer: its fast tokenizer, with a chat template.
        messages: a conversation (OpenAI-style messages), or a list of conversations: a batch.
        tools: the tools offered (see `Toolset.of`), or a list with those of each conversation.
        max_new_tokens: the budget of a turn; every guarded turn ends closed within it.
        policy: `enforce`; `recover`, which also takes back and tries again what the model itself is
            not sure of, and cleans the history of corrupt turns; or `observe`, which changes no
            logit.
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        wire_format: a format or its name; by default it is recognised (`toolguard.recognise`).
        temperature: 0 takes the likeliest token; otherwise logits are divided by it.
        top_k: sample from the k likeliest tokens only; 0: from all.
        top_p: sample from the smallest set of tokens with this mass only.
        seed: seeds the sampling.
        reference: for `recover`: a model with the same tokenizer from before the training that did
            the damage, or a smaller one. It decides about structure where the model's own odds are
            spiked; it is fed every token once, and asked at decision points only.
        calibration: for `recover`, instead of a reference: maps the model's odds of a call to those
            of the healthy model, from profiles of both (`toolguard.Calibration`).
        trace: keep what the watch reads before every token (`Report.steps`).
        show_tools: have the chat template describe the tools; without, the messages do.
        template: passed to the chat template (`enable_thinking=False`, ...).

    Returns:
        The turn; for a list of conversations, the list of their turns.

    Raises:
        RequestError: a parameter is out of its range.
        FormatError, ToolsetError, TokenizerError: see `toolguard.errors`.
    """
    _check(max_new_tokens, policy, temperature, top_k, top_p)
    for name, given in (("reference", reference), ("calibration", calibration)):
        if given is not None and policy != "recover":
            raise RequestError(f"a {name} serves policy 'recover', not {policy!r}")
    if reference is not None and calibration is not None:
        raise RequestError("a reference decides what a calibration would: give one of them")
    tokenizer = fast_tokenizer(tokenizer)
    if not messages:
        raise RequestError("no messages: give a conversation, or a list of conversations")
    if isinstance(messages[0], Mapping):
        conversations: Sequence[Messages] = [messages]  # type: ignore[list-item]
        offered = [Toolset.of(tools)]  # type: ignore[arg-type]
    else:
        conversations = messages  # type: ignore[assignment]
        offered = _toolsets(tools, len(conversations))
    if wire_format is None:
        wire_format = recognise(tokenizer)
    elif isinstance(wire_format, str):
        wire_format = WireFormat.load(wire_format)
    prompts, guards = [], []
    corrupt = []
    for conversation, toolset in zip(conversations, offered, strict=True):
        found = 0
        if policy == "recover":
            conversation, found = cleaned(conversation, wire_format, toolset)
        corrupt.append(found)
        prompt = prompt_of(tokenizer, conversation, toolset if show_tools else None, **template)
        prompts.append(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        guards.append(
            Guard.compile(
                wire_format,
                toolset,
                tokenizer,
                tool_choice=tool_choice,
                parallel=parallel,
                reasoning=reasoning_after(prompt, wire_format),
                end_tokens=end_tokens(model, tokenizer, wire_format),
            )
        )
    rows = [
        Row(guard, prompt, guard.start(max_new_tokens), cleaned=found)
        for guard, prompt, found in zip(guards, prompts, corrupt, strict=True)
    ]
    for row in rows:
        row.state.steps = [] if trace else None
        row.recovery = Recovery(row.guard) if policy == "recover" else None
    sampler = Sampler(temperature, top_k, top_p, seed, model.device)
    Decoder(model, rows, policy, sampler, max_new_tokens, reference, calibration).decode()
    turns = [row.turn(policy) for row in rows]
    return turns[0] if isinstance(messages[0], Mapping) else turns


def prompt_of(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, toolset: Toolset | None, **template: Any
) -> str:
    """What the chat template makes of a request, up to where the turn begins.

    Args:
        toolset: the tools to describe; None: the messages do so already.

    Raises:
        RequestError: the history has a call whose arguments are no JSON.
    """
    prompt = tokenizer.apply_chat_template(
        [_rendered(message) for message in messages],
        tools=[*toolset.definitions] if toolset else None,
        add_generation_prompt=True,
        tokenize=False,
        **template,
    )
    assert isinstance(prompt, str)
    return prompt


def _rendered(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as chat templates take it: with the arguments of its calls as objects."""
    if not message.get("tool_calls"):
        return dict(message)
    calls = []
    for call in message["tool_calls"]:
        function = dict(call.get("function", call))
        if isinstance(function.get("arguments"), str):
            try:
                function["arguments"] = json.loads(function["arguments"])
            except ValueError as error:
                raise RequestError(
                    f"the history has a call of {function.get('name')!r} whose arguments are no "
                    f"JSON ({error}): repair or drop that message"
                ) from error
        calls.append({**call, "function": function} if "function" in call else function)
    return {**message, "tool_calls": calls}


def _check(max_new_tokens: int, policy: str, temperature: float, top_k: int, top_p: float) -> None:
    if max_new_tokens < 1:
        raise RequestError(f"max_new_tokens={max_new_tokens}: at least 1")
    if policy not in _POLICIES:
        raise RequestError(f"policy {policy!r}: use {', '.join(_POLICIES)}")
    if not 0 <= temperature < float("inf"):
        raise RequestError(f"temperature={temperature}: 0 (greedy) or more")
    if top_k < 0:
        raise RequestError(f"top_k={top_k}: 0 (all) or more")
    if not 0 < top_p <= 1:
        raise RequestError(f"top_p={top_p}: above 0, at most 1")


def _toolsets(tools: Any, conversations: int) -> list[Toolset]:
    """One toolset per conversation."""
    apart = not isinstance(tools, Toolset | str) and any(
        isinstance(tool, Toolset | list | tuple) for tool in tools
    )
    if not apart:
        return [Toolset.of(tools)] * conversations
    if len(tools) != conversations:
        raise RequestError(f"{len(tools)} toolsets for {conversations} conversations")
    return [Toolset.of(each) for each in tools]


def end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wire_format: WireFormat
) -> list[int]:
    """What ends a turn: for the model's own configuration, the tokenizer, and the format."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ends = configured if isinstance(configured, list) else [configured]
    ends = [*ends, *turn_ends(wire_format, tokenizer)]
    return [token for token in dict.fromkeys(ends) if token is not None]
