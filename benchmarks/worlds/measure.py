"""What the guard gives back of a model: by policy, temperature and seed."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

import toolguard
from benchmarks.lab.cases import Case
from benchmarks.recovery import toolguard_cases
from toolguard.evaluation.score import is_right

LIMIT = 128
"""Most tokens in a turn; the longest right one, with two calls, has fewer than 120."""
MODES = ("unguarded", "enforce", "recover", "calibration", "reference")
PLAIN = ("chat", "talk", "result")
"""Kinds of cases that need no call; a kind is the beginning of a case's id."""


@dataclass(frozen=True)
class Measured:
    """One run. Turns by kind of case: exact ones of those that need calls, plain replies of the
    others; `valid` are all-valid calls where calls are needed."""

    checkpoint: str
    mode: str
    temperature: float
    seed: int
    right: dict[str, list[bool]]
    valid: list[bool]
    tokens: int
    passes: int
    retried: int
    seconds: float
    turns: list[dict[str, Any]]

    @property
    def exact(self) -> list[bool]:
        return [hit for kind, hits in self.right.items() if kind not in PLAIN for hit in hits]

    @property
    def kept(self) -> list[bool]:
        return [hit for kind in PLAIN for hit in self.right.get(kind, ())]


def measure(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    cases: Sequence[Case],
    mode: str,
    reference: PreTrainedModel,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 24,
    limit: int = LIMIT,
    calibration: toolguard.Calibration | None = None,
) -> Measured:
    options: dict[str, Any] = {"policy": {"unguarded": "observe"}.get(mode, mode)}
    if mode == "reference":
        options = {"policy": "recover", "reference": reference}
    if mode == "calibration":
        options = {"policy": "recover", "calibration": calibration}
    asked = toolguard_cases(sorted(cases, key=lambda case: len(json.dumps(case.tools))))
    started = time.process_time()
    turns = list(
        toolguard.answer(
            model,
            tokenizer,
            asked,
            batch=batch,
            max_new_tokens=limit,
            temperature=temperature,
            seed=seed,
            **options,
        )
    )
    seconds = time.process_time() - started
    right: dict[str, list[bool]] = {case.id.split("-")[0]: [] for case in cases}
    for case, turn in zip(asked, turns, strict=True):
        right[case.id.split("-")[0]].append(is_right(case, turn))
    reports = [turn.report for turn in turns if turn.report is not None]
    return Measured(
        checkpoint=name,
        mode=mode,
        temperature=temperature,
        seed=seed,
        right=right,
        valid=[t.state == "healthy_call" for c, t in zip(asked, turns, strict=True) if c.calls],
        tokens=sum(report.tokens for report in reports),
        passes=sum(report.forward_passes for report in reports),
        retried=sum(report.retried_tokens for report in reports),
        seconds=round(seconds, 1),
        turns=[*told(asked, turns)],
    )


def told(
    cases: Iterable[toolguard.Case], turns: Iterable[toolguard.Turn]
) -> Iterator[dict[str, Any]]:
    """Each turn, to be looked at."""
    for case, turn in zip(cases, turns, strict=True):
        assert turn.report is not None
        yield {
            "id": case.id,
            "asked": case.messages[-1]["content"],
            "wanted": [[call["name"], call["arguments"]] for call in case.calls],
            "state": turn.state,
            "right": is_right(case, turn),
            "raw": turn.raw,
            "interventions": [asdict(each) for each in turn.report.interventions],
        }
