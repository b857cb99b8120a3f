"""An engine, some held-out questions and the ids of their turns, one run after the other.

`python -m tests.vllm.engine OPTIONS` prints them as JSON: runners are chosen when a process starts,
so each of the others has its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import toolguard
from toolguard import WireFormat
from toolguard.integrations.vllm.request import GuardRequest

Run: TypeAlias = tuple[Sequence[bool], dict[str, Any]]
"""Which of the questions are guarded, and how all are sampled."""


def engine(**options: Any) -> Any:
    """Of the checkpoint that opens a call and stops."""
    from vllm import LLM

    return LLM(
        str(toolguard.checkpoint("open_then_stop")),
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=8,
        disable_log_stats=False,
        **{"max_model_len": 1024, **options},
    )


def generated(llm: Any, runs: Sequence[Run]) -> list[list[list[int]]]:
    """The ids of each run's turns."""
    from vllm import SamplingParams, TokensPrompt

    tokenizer = llm.get_tokenizer()
    cases = [case for case in toolguard.held_out() if case.calls and len(case.messages) <= 2]
    prompts, requests = [], []
    for case in cases[: len(runs[0][0])]:
        prompt = tokenizer.apply_chat_template(
            [dict(message) for message in case.messages],
            tools=case.toolset.definitions,
            add_generation_prompt=True,
            tokenize=False,
        )
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        prompts.append(TokensPrompt(prompt_token_ids=ids))
        request = GuardRequest.checked(WireFormat.load("hermes"), case.toolset.definitions)
        requests.append(request.to_extra())
    ids = []
    for guarded, sampling in runs:
        params = [
            SamplingParams(max_tokens=100, extra_args=extra if guard else None, **sampling)
            for guard, extra in zip(guarded, requests, strict=True)
        ]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        ids.append([list(output.outputs[0].token_ids) for output in outputs])
    return ids


def main(options: dict[str, Any], runs: list[Run]) -> None:
    llm = engine(max_model_len=512, **options)
    found = {
        "ids": generated(llm, runs),
        "preemptions": sum(
            metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions"
        ),
    }
    print("found:", json.dumps(found))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
