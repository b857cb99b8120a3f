"""The benchmark of cost: that its pieces are the step, and that engines are at the same place."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("xgrammar")

from benchmarks.cost import BESIDE, ENGINES, PLACES, at, likely_logits, tools
from benchmarks.replay_scripts import Subject, subject


@pytest.fixture(scope="module")
def hermes() -> Subject:
    return subject("hermes", "bundled")


@pytest.mark.parametrize("place", PLACES["hermes"])
def test_what_is_likely_is_legal_for_all_engines(hermes: Subject, place: str) -> None:
    begun, likely = at(hermes, place)
    for engine in ENGINES:
        made = engine(tools(1), hermes)
        made.start(2, begun)
        for _ in range(2):  # and again, when the step is taken back
            logits = likely_logits(hermes, 2, likely)
            made.step(logits, likely)
            assert logits.argmax(1).tolist() == [likely, likely]
            assert logits.isinf().any(), engine.name
            made.back()


@pytest.mark.parametrize("place", PLACES["hermes"])
def test_pieces_make_a_step(hermes: Subject, place: str) -> None:
    begun, likely = at(hermes, place)
    for engine in BESIDE:
        made = engine(tools(1), hermes)
        made.start(2, begun)
        whole, parts = (likely_logits(hermes, 2, likely) for _ in range(2))
        made.step(whole, likely)
        made.back()
        for piece in made.pieces().values():
            piece(parts, likely)
        assert torch.equal(whole, parts)
