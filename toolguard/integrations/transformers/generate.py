"""`toolguard.generate`: conversations and tools in, finished turns out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, overload

import torch
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ...decoding.guard import Guard
from ...decoding.state import GuardState
from ...errors import RequestError
from ...formats.wire_format import WireFormat
from ...grammar.engine import fast_tokenizer
from ...grammar.request import Reasoning
from ...parsing.recognise import recognise
from ...parsing.turn import Turn
from ...policy.enforce import enforce
from ...report.report import Intervention, Policy
from ...tools.toolset import ToolLike, Toolset

Messages: TypeAlias = Sequence[Mapping[str, Any]]
Tools: TypeAlias = Toolset | Sequence[ToolLike]

_POLICIES = ("observe", "enforce")


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
        policy: `enforce`, or `observe`, which changes no logit.
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        wire_format: a format or its name; by default it is recognised (`toolguard.recognise`).
        temperature: 0 takes the likeliest token; otherwise logits are divided by it.
        top_k: sample from the k likeliest tokens only; 0: from all.
        top_p: sample from the smallest set of tokens with this mass only.
        seed: seeds the sampling.
        template: passed to the chat template (`enable_thinking=False`, ...).

    Returns:
        The turn; for a list of conversations, the list of their turns.

    Raises:
        RequestError: a parameter is out of its range.
        FormatError, ToolsetError, TokenizerError: see `toolguard.errors`.
    """
    _check(max_new_tokens, policy, temperature, top_k, top_p)
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
    for conversation, toolset in zip(conversations, offered, strict=True):
        prompt = tokenizer.apply_chat_template(
            [_rendered(message) for message in conversation],
            tools=[*toolset.definitions] or None,
            add_generation_prompt=True,
            tokenize=False,
            **template,
        )
        assert isinstance(prompt, str)
        prompts.append(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        guards.append(
            Guard.compile(
                wire_format,
                toolset,
                tokenizer,
                tool_choice=tool_choice,
                parallel=parallel,
                reasoning=_reasoning(prompt, wire_format),
                end_tokens=_end_tokens(model, tokenizer, wire_format),
            )
        )
    warpers = LogitsProcessorList()
    if temperature and temperature != 1:
        warpers.append(TemperatureLogitsWarper(temperature))
    if temperature and top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if temperature and top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    sampler = _Sampler(warpers, bool(temperature), seed, model.device)
    rows = [
        _Row(guard, prompt, guard.start(max_new_tokens))
        for guard, prompt in zip(guards, prompts, strict=True)
    ]
    _decode(model, rows, policy, sampler, max_new_tokens)
    turns = [row.turn(policy) for row in rows]
    return turns[0] if isinstance(messages[0], Mapping) else turns


@dataclass
class _Row:
    """One sequence: what is still to be fed, and the drafts at the end of that."""

    guard: Guard
    queue: list[int]
    state: GuardState
    ids: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)  # where in the cache the ids lie, if fed
    drafts: int = 0
    forced: int = 0
    position: int = 0
    passes: int = 0
    seconds: float = 0.0
    done: bool = False

    def take(self, token: int, budget: int, guarded: bool) -> None:
        self.ids.append(token)
        if guarded and not self.state.accept(token):
            raise AssertionError(f"token {token} was sampled from under a mask that forbids it")
        self.done = token in self.guard.vocabulary.end_ids or len(self.ids) == budget

    def lead(self) -> list[int]:
        """Takes back the bare body of a call, for the opener to go before it.

        Returns the cache columns that it lay in; the body itself becomes a draft.
        """
        bare = self.state.bare_call()
        if not bare or len(self.ids) + len(self.guard.opener_ids) >= self.state.max_new_tokens:
            return []
        body = self.ids[-bare:]
        spelled = self.guard.vocabulary.bytes_of(body).decode("utf-8", "replace")
        self.state.rollback(bare)
        del self.ids[-bare:]
        step = len(self.ids)
        self.state.interventions.append(
            Intervention(step, "text", spelled, body[0], None, "lead", "a call without its opener")
        )
        fed = self.columns[step:]
        del self.columns[step:]
        self.position -= len(fed)
        unfed = self.ids[len(self.columns) :]
        for token in self.guard.opener_ids:
            self.take(token, self.state.max_new_tokens, guarded=True)
        self.queue = [*unfed, *self.guard.opener_ids, *body]
        self.drafts = len(body)
        return fed

    def turn(self, policy: Policy) -> Turn:
        report = self.state.report(self.passes, self.seconds, self.forced)
        report = replace(report, policy=policy, tokens=len(self.ids))
        return replace(self.guard.read(self.ids), report=report)


@dataclass
class _Sampler:
    warpers: LogitsProcessorList
    sampling: bool
    seed: int | None
    device: torch.device

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device)
        if self.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(self.seed)

    def __call__(self, logits: torch.Tensor) -> list[int]:
        """One token for each row of logits [rows, vocabulary]."""
        if not self.sampling:
            return logits.argmax(-1).tolist()
        # The warpers are stateless: they do not read the ids that the interface asks for.
        no_ids = torch.empty(0, dtype=torch.long)
        scores = self.warpers(no_ids, logits.float())  # type: ignore[arg-type]
        picked = torch.multinomial(scores.softmax(-1), 1, generator=self.generator)
        return picked.squeeze(-1).tolist()


@torch.inference_mode()
def _decode(
    model: PreTrainedModel, rows: list[_Row], policy: Policy, sampler: _Sampler, budget: int
) -> None:
    """Decodes all rows to their ends.

    Each pass feeds every open row its queue, right-aligned: a sampled token and the tokens that the
    grammar forces after it, as drafts. A draft that the model does not pick itself is taken out of
    the cache again by a hole in the attention mask.
    """
    guarded = policy == "enforce"
    drafting = guarded and not model._is_stateful  # a recurrent state cannot have holes
    device = model.device
    seen = torch.zeros((len(rows), 0), dtype=torch.long, device=device)
    cache = None
    active = list(rows)
    while active:
        started = time.perf_counter()
        width = max(len(row.queue) for row in active)
        block = torch.zeros((len(active), width), dtype=torch.long)
        fed = torch.zeros((len(active), width), dtype=torch.long)
        positions = torch.zeros((len(active), width), dtype=torch.long)
        for index, row in enumerate(active):
            size = len(row.queue)
            block[index, width - size :] = torch.tensor(row.queue)
            fed[index, width - size :] = 1
            positions[index, width - size :] = torch.arange(row.position, row.position + size)
        seen = torch.cat([seen, fed.to(device)], dim=1)
        most = max(row.drafts for row in active)
        output = model(
            input_ids=block.to(device),
            attention_mask=seen,
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=most + 1,
        )
        cache = output.past_key_values
        _verify(active, output.logits, sampler, budget, guarded)
        for index, row in enumerate(active):
            row.passes += 1
            if row.drafts:  # those left over were not what the model picked
                seen[index, -row.drafts :] = 0
            end = seen.shape[1] - row.drafts
            row.columns += range(end - (len(row.ids) - 1 - len(row.columns)), end)
            row.position += len(row.queue) - row.drafts
            row.queue = row.ids[-1:]
            row.drafts = 0
            if drafting and not row.done:
                taken_back = row.lead()
                if taken_back:
                    seen[index, taken_back] = 0
                if not row.drafts:
                    drafts = row.state.forced()[: budget - len(row.ids) - 1]
                    row.queue = row.queue + drafts
                    row.drafts = len(drafts)
        elapsed = time.perf_counter() - started
        for row in active:
            row.seconds += elapsed
        kept = [index for index, row in enumerate(active) if not row.done]
        if len(kept) < len(active):
            chosen = torch.tensor(kept, dtype=torch.long, device=device)
            seen = seen[chosen]
            if kept:
                cache.batch_select_indices(chosen)
            active = [active[index] for index in kept]


def _verify(
    active: list[_Row], logits: torch.Tensor, sampler: _Sampler, budget: int, guarded: bool
) -> None:
    """Samples after each fed token, as long as the drafts are what is sampled.

    Leaves in `row.drafts` how many drafts were not confirmed.
    """
    going = list(range(len(active)))
    while going:
        picked = [active[index] for index in going]
        last = logits.shape[1] - 1
        scores = torch.stack(
            [logits[i, last - r.drafts] for i, r in zip(going, picked, strict=True)]
        )
        if guarded:
            enforce([row.state for row in picked], scores)
        following = []
        for index, row, token in zip(going, picked, sampler(scores), strict=True):
            expected = row.queue[-row.drafts] if row.drafts else None
            row.take(token, budget, guarded)
            if token == expected and not row.done:
                row.drafts -= 1
                row.forced += 1
                following.append(index)
        going = following


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
        raise RequestError(f"policy {policy!r}: use {' or '.join(_POLICIES)}")
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


def _reasoning(prompt: str, wire_format: WireFormat) -> Reasoning:
    opener = wire_format.reasoning_opener
    if opener and prompt.rstrip().endswith(opener):
        return "open"
    closer = wire_format.reasoning_closer
    return "none" if closer and prompt.rstrip().endswith(closer) else "auto"


def _end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wire_format: WireFormat
) -> list[int]:
    """What ends a turn: for the model's own configuration, the tokenizer, and the format."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ends = configured if isinstance(configured, list) else [configured]
    added = tokenizer.get_added_vocab()
    ends = [*ends, tokenizer.eos_token_id, *(added.get(text) for text in wire_format.ends)]
    return [token for token in dict.fromkeys(ends) if token is not None]
