"""The same turns whatever the engine does with its batch: both runners, chunks of prompts,
preemption, speculation; and requests without a guard are not touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import LLM

import toolguard

from .engine import Run, generated
from .serving import ENVIRONMENT, V2

ALONE = "VLLM_ENABLE_V1_MULTIPROCESSING"
GUARDED = tuple(number % 3 != 2 for number in range(24))
CHUNKS = {"max_num_batched_tokens": 64}
CROWDED = {"num_gpu_blocks_override": 20, "block_size": 32}
GUESSES = {
    "speculative_config": {
        "method": "ngram", "num_speculative_tokens": 3,
        "prompt_lookup_max": 4, "prompt_lookup_min": 1,
    }
}  # fmt: skip


GREEDY, SAMPLED = {"temperature": 0}, {"temperature": 0.8, "seed": 3}
MIXED: Run = (GUARDED, GREEDY)
UNGUARDED = (False,) * len(GUARDED)


@cache
def _turns(runner: str, options: str) -> tuple[list[list[list[int]]], int]:
    environment = {**os.environ, **ENVIRONMENT, ALONE: "0", **(V2 if runner == "v2" else {})}
    root = Path(__file__).parents[2]
    path = [str(root), environment.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.vllm.engine", options],
        env={**environment, "PYTHONPATH": os.pathsep.join(path)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("found: ")]
    assert found, done.stdout[-2000:] + done.stderr[-4000:]
    answer = json.loads(found[0].removeprefix("found: "))
    return answer["ids"], answer["preemptions"]


def turns(runner: str, options: dict[str, Any]) -> list[list[int]]:
    """The ids of the mixed run's turns on an engine of its own."""
    [ids], preemptions = _turns(runner, json.dumps({"options": options, "runs": [MIXED]}))
    assert bool(preemptions) == ("num_gpu_blocks_override" in options)
    return ids


@pytest.fixture(scope="module")
def plain(llm: LLM) -> list[list[list[int]]]:
    """Mixed and unguarded turns, greedy and sampled, of the engine in this process."""
    return generated(llm, [MIXED, (UNGUARDED, GREEDY), (GUARDED, SAMPLED), (UNGUARDED, SAMPLED)])


def test_they_are_those_of_generate(plain: list[list[list[int]]]) -> None:
    path = toolguard.checkpoint("open_then_stop")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    cases = [case for case in toolguard.held_out() if case.calls and len(case.messages) <= 2]
    for case, guarded, ids in zip(cases, GUARDED, plain[0], strict=False):
        if guarded:
            turn = toolguard.generate(
                model, tokenizer, case.messages, case.toolset, max_new_tokens=100
            )
            assert ids == list(turn.ids)


def test_requests_without_a_guard_are_not_touched(plain: list[list[list[int]]]) -> None:
    greedy, plain_greedy, sampled, plain_sampled = plain
    for mixed, unguarded in ((greedy, plain_greedy), (sampled, plain_sampled)):
        apart = [number for number, guarded in enumerate(GUARDED) if not guarded]
        assert [mixed[n] for n in apart] == [unguarded[n] for n in apart]
        assert mixed != unguarded


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(CHUNKS | CROWDED, id="both"),
        pytest.param(CHUNKS, id="chunks", marks=pytest.mark.slow),
        pytest.param(CROWDED, id="crowded", marks=pytest.mark.slow),
    ],
)
def test_chunks_and_preemption_change_nothing(
    options: dict[str, Any], plain: list[list[list[int]]]
) -> None:
    assert turns("v1", options) == plain[0]


@pytest.mark.v2
@pytest.mark.parametrize(
    "options", [{}, CHUNKS, CROWDED, GUESSES], ids=["plain", "chunks", "crowded", "guesses"]
)
def test_the_second_runner_does_the_same(
    options: dict[str, Any], plain: list[list[list[int]]]
) -> None:
    assert turns("v2", options) == plain[0]
