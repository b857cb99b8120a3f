"""A diagnosis over HTTP says the same as one of the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import toolguard
from toolguard import Case, Endpoint, LocalModel

from .serving import GUARDED, serving


def test_a_served_model_is_diagnosed_as_its_weights_are(asked: list[Case], tmp_path: Path) -> None:
    with serving(
        "open_then_stop", *GUARDED, log=tmp_path / "log", VLLM_PLUGINS="toolguard"
    ) as address:
        same(address, asked)


def same(address: str, asked: list[Case]) -> None:
    replies = [case for case in toolguard.held_out() if not case.calls and len(case.messages) <= 2]
    cases = [*asked[:10], *replies[:5]]
    path = toolguard.checkpoint("open_then_stop")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    local = LocalModel(model, AutoTokenizer.from_pretrained(path))
    endpoint = Endpoint(f"{address}/v1", "hermes")
    assert endpoint.modes == ("unguarded", "repaired", "enforce")
    for mode in ("unguarded", "enforce"):
        here, there = local.answer(cases, mode), endpoint.answer(cases, mode)  # type: ignore[arg-type]
        for own, served in zip(here, there, strict=True):
            assert (served.raw, served.state, served.calls) == (own.raw, own.state, own.calls)
    at_hand = {forced.case: forced for forced in local.force(cases)}
    for forced in endpoint.force(cases):
        assert forced.right == at_hand[forced.case].right
    found = toolguard.diagnose(endpoint, cases).verdict
    assert found.name == "format damaged, skill intact"
