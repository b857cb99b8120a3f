"""Whatever the model's logits are, a guarded turn ends, parses and validates."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from .sizes import sizes
from .strategies import toolsets
from .turns import random_turns

ROWS = 8


@sizes(15, 30)
def test_every_turn_ends_parses_and_validates(
    size: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    @settings(max_examples=size, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tools=toolsets(), data=st.data())
    def check(tools: list[dict[str, Any]], data: st.DataObject) -> None:
        assert not any(random_turns("hermes", tools, tokenizer, data, ROWS))

    check()
