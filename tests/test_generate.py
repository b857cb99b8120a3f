"""`toolguard.generate` and the logits processor, on models with random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, PreTrainedTokenizerBase, Qwen2ForCausalLM
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessorList,
)

import toolguard
from toolguard import Guard, GuardLogitsProcessor, Toolset

CONVERSATIONS = [
    [{"role": "user", "content": text}]
    for text in ("What time is it in Bern?", "Hi", "And tomorrow, what will the weather be like?")
]
BUDGET = 60


@pytest.fixture
def prompts(tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]) -> Any:
    """The conversations as one left-padded batch."""
    texts = [
        tokenizer.apply_chat_template(c, tools=tools, add_generation_prompt=True, tokenize=False)
        for c in CONVERSATIONS
    ]
    return tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")


def options(tokenizer: PreTrainedTokenizerBase, processor: Any) -> dict[str, Any]:
    return {
        "max_new_tokens": BUDGET,
        "logits_processor": [processor],
        "pad_token_id": tokenizer.pad_token_id,
    }


def test_a_batch_says_what_its_rows_say_alone(
    noise: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    batch = toolguard.generate(noise, tokenizer, CONVERSATIONS, tools, max_new_tokens=BUDGET)
    for conversation, turn in zip(CONVERSATIONS, batch, strict=True):
        alone = toolguard.generate(noise, tokenizer, conversation, tools, max_new_tokens=BUDGET)
        assert alone.ids == turn.ids
        assert turn.faults == ()


@pytest.mark.parametrize("choice", ["auto", "required", "get_time"])
def test_forced_tokens_change_the_number_of_passes_and_not_the_ids(
    noise: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, Any]],
    prompts: Any,
    choice: str,
) -> None:
    turns = toolguard.generate(
        noise, tokenizer, CONVERSATIONS, tools, max_new_tokens=BUDGET, tool_choice=choice
    )
    guard = Guard.compile("hermes", tools, tokenizer, tool_choice=choice)
    processor = GuardLogitsProcessor(guard, max_new_tokens=BUDGET)
    out = noise.generate(**prompts, do_sample=False, **options(tokenizer, processor))
    assert [turn.ids for turn in processor.turns(out)] == [turn.ids for turn in turns]
    for turn in turns:
        assert turn.report is not None
        assert turn.report.forward_passes == turn.report.tokens - turn.report.forced
        assert choice == "auto" or turn.report.forced > 0


def test_each_conversation_may_have_tools_of_its_own(
    noise: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    offered = [[{"name": name}] for name in ("one", "two", "three")]
    turns = toolguard.generate(
        noise, tokenizer, CONVERSATIONS, offered, max_new_tokens=BUDGET, tool_choice="required"
    )
    # Where noise speaks up to the end of the budget, it is this that makes the call.
    calls = [turn.calls[0] if turn.calls else turn.cut for turn in turns]
    assert [call and call.name for call in calls] == ["one", "two", "three"]


def test_calls_in_the_history_may_have_their_arguments_as_text(
    noise: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    def history(arguments: Any) -> list[dict[str, Any]]:
        function = {"name": "get_time", "arguments": arguments}
        call = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
        return [*CONVERSATIONS[0], call, {"role": "tool", "content": "12:00"}]

    turns = [
        toolguard.generate(noise, tokenizer, history(arguments), tools, max_new_tokens=20)
        for arguments in ({"zone": "UTC"}, '{"zone": "UTC"}')
    ]
    assert turns[0].ids == turns[1].ids
    with pytest.raises(toolguard.RequestError, match="whose arguments are no JSON"):
        toolguard.generate(noise, tokenizer, history("{"), tools)


def test_sampling_is_seeded_and_guarded(
    noise: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    def sample(seed: int) -> list[toolguard.Turn]:
        return toolguard.generate(
            noise,
            tokenizer,
            CONVERSATIONS,
            tools,
            max_new_tokens=BUDGET,
            temperature=1.5,
            top_k=40,
            top_p=0.95,
            seed=seed,
        )

    one, again, other = sample(1), sample(1), sample(2)
    assert [turn.ids for turn in one] == [turn.ids for turn in again]
    assert [turn.ids for turn in one] != [turn.ids for turn in other]
    assert all(turn.faults == () or turn.cut for turn in one + other)


def test_observe_gives_the_models_own_tokens(
    noise: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, Any]],
    prompts: Any,
) -> None:
    turns = toolguard.generate(
        noise, tokenizer, CONVERSATIONS, tools, max_new_tokens=20, policy="observe"
    )
    out = noise.generate(
        **prompts, do_sample=False, max_new_tokens=20, pad_token_id=tokenizer.pad_token_id
    )
    for turn, ids in zip(turns, out[:, prompts["input_ids"].shape[1] :].tolist(), strict=True):
        assert turn.ids == tuple(ids[: len(turn.ids)])


def test_a_reply_that_its_budget_ended_is_not_kept(
    noise: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    turns = toolguard.generate(noise, tokenizer, CONVERSATIONS, tools, max_new_tokens=12)
    cases = [
        toolguard.Case(str(place), "chat", Toolset.of(tools), tuple(messages), (), None)
        for place, messages in enumerate(CONVERSATIONS)
    ]
    assert [turn.state for turn in turns] == ["healthy_response"] * 3
    assert all(turn.report is not None and turn.report.cut for turn in turns)
    assert toolguard.score(cases, turns, 1.0).no_call_kept == 0
    ended = [replace(turn, report=replace(turn.report, cut=False)) for turn in turns]
    assert toolguard.score(cases, ended, 1.0).no_call_kept == 1


SEARCHES: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 1.3, "num_return_sequences": 3},
    {"do_sample": False, "num_beams": 4},
    {"do_sample": False, "num_beams": 4, "num_return_sequences": 4},
    {"do_sample": True, "num_beams": 3},
]


@pytest.mark.parametrize(
    ("search", "choice"),
    [
        pytest.param(search, choice, marks=() if (n + m) % 2 else pytest.mark.slow)
        for n, search in enumerate(SEARCHES)
        for m, choice in enumerate(("required", "auto"))
    ],
)
def test_every_way_of_searching_is_guarded(
    noise: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, Any]],
    prompts: Any,
    search: dict[str, Any],
    choice: str,
) -> None:
    torch.manual_seed(0)
    guard = Guard.compile("hermes", tools, tokenizer, tool_choice=choice)
    guards = [guard] * len(CONVERSATIONS)
    processor = GuardLogitsProcessor(guards, max_new_tokens=BUDGET)
    out = noise.generate(**prompts, **options(tokenizer, processor), **search)
    turns = processor.turns(out)
    assert len(turns) == len(CONVERSATIONS) * search.get("num_return_sequences", 1)
    for turn in turns:
        assert [fault.kind for fault in turn.faults] == ["unfinished_turn"] * bool(turn.cut)
        assert turn.report is not None or "num_beams" in search
        assert choice == "auto" or turn.calls or turn.cut


def test_a_processor_serves_one_call_of_generate(
    noise: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, Any]],
    prompts: Any,
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    processor = GuardLogitsProcessor(guard, max_new_tokens=BUDGET)
    noise.generate(**prompts, **options(tokenizer, processor))
    with pytest.raises(toolguard.StateError, match="of its own"):
        noise.generate(**prompts, **options(tokenizer, processor))
    with pytest.raises(toolguard.RequestError, match="2 guards for 3 rows"):
        noise.generate(
            **prompts,
            **options(tokenizer, GuardLogitsProcessor([guard] * 2, max_new_tokens=BUDGET)),
        )


def test_continuous_batching_is_refused(
    tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    processors = LogitsProcessorList([GuardLogitsProcessor(guard, max_new_tokens=BUDGET)])
    with pytest.raises(toolguard.RequestError, match="continuous batching"):
        ContinuousBatchingLogitsProcessorList(processors)


def test_assisted_generation_is_refused(
    noise: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]
) -> None:
    guard = Guard.compile("hermes", tools, tokenizer)
    prompt = tokenizer("one two one two one two", return_tensors="pt")
    processor = GuardLogitsProcessor(guard, max_new_tokens=BUDGET)
    with pytest.raises(toolguard.StateError, match="assisted generation"):
        noise.generate(
            **prompt, **options(tokenizer, processor), prompt_lookup_num_tokens=3, do_sample=False
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"max_new_tokens": 1}, "too small"),
        ({"policy": "heal"}, "use observe, enforce, recover"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"tool_choice": "nothing"}, "nothing"),
    ],
)
def test_absurd_parameters_are_refused_before_any_work(
    noise: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tools: list[dict[str, Any]],
    given: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(toolguard.RequestError, match=message):
        toolguard.generate(noise, tokenizer, CONVERSATIONS, tools, **given)
    with pytest.raises(toolguard.RequestError, match="no messages"):
        toolguard.generate(noise, tokenizer, [], tools)
    with pytest.raises(toolguard.RequestError, match="2 toolsets for 3"):
        toolguard.generate(noise, tokenizer, CONVERSATIONS, [tools, tools])
