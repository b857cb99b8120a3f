"""The same turns whatever the engine does with its batch: both runners, chunks of prompts,
preemption, speculation; and requests without a guard are not touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard

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


Run: TypeAlias = tuple[tuple[bool, ...], dict[str, Any]]
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


def runs(runner: str, *runs: Run, **engine: Any) -> list[list[list[int]]]:
    """The ids of each run's turns, one after the other on one engine."""
    ids, preemptions = _turns(runner, json.dumps({"engine": engine, "runs": runs}))
    assert bool(preemptions) == (engine == CROWDED)
    return ids


def turns(runner: str, **engine: Any) -> list[list[int]]:
    if runner == "v1" and not engine:  # an engine that is there already
        return plain_engine()[0]
    return runs(runner, MIXED, **engine)[0]


def plain_engine() -> list[list[list[int]]]:
    return runs("v1", MIXED, (UNGUARDED, GREEDY), (GUARDED, SAMPLED), (UNGUARDED, SAMPLED))


def test_they_are_those_of_generate() -> None:
    path = toolguard.checkpoint("open_then_stop")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    cases = [case for case in toolguard.held_out() if case.calls and len(case.messages) <= 2]
    for case, guarded, ids in zip(cases, GUARDED, turns("v1"), strict=False):
        if guarded:
            turn = toolguard.generate(
                model, tokenizer, case.messages, case.toolset, max_new_tokens=100
            )
            assert ids == list(turn.ids)


def test_requests_without_a_guard_are_not_touched() -> None:
    greedy, plain_greedy, sampled, plain_sampled = plain_engine()
    for mixed, plain in ((greedy, plain_greedy), (sampled, plain_sampled)):
        apart = [number for number, guarded in enumerate(GUARDED) if not guarded]
        assert [mixed[n] for n in apart] == [plain[n] for n in apart]
        assert mixed != plain


@pytest.mark.parametrize("engine", [CHUNKS, CROWDED], ids=["chunks", "crowded"])
def test_chunks_and_preemption_change_nothing(engine: dict[str, Any]) -> None:
    assert turns("v1", **engine) == turns("v1")


@pytest.mark.v2
@pytest.mark.parametrize(
    "engine", [{}, CHUNKS, CROWDED, GUESSES], ids=["plain", "chunks", "crowded", "guesses"]
)
def test_the_second_runner_does_the_same(engine: dict[str, Any]) -> None:
    assert turns("v2", **engine) == turns("v1")
