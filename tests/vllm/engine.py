"""`python -m tests.vllm.engine OPTIONS`: one engine in this process, some held-out questions, and
the ids of their turns as JSON, one run after the other. Runners are chosen when a process starts,
so each has its own.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import toolguard
from toolguard import WireFormat
from toolguard.integrations.vllm.request import GuardRequest


def main(engine: dict[str, Any], runs: list[tuple[list[bool], dict[str, Any]]]) -> None:
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(
        str(toolguard.checkpoint("open_then_stop")),
        dtype="float32",
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=8,
        disable_log_stats=False,
        **engine,
    )
    tokenizer: Any = llm.get_tokenizer()
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
    found = {
        "ids": ids,
        "preemptions": sum(
            metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions"
        ),
    }
    print("found:", json.dumps(found))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
