"""A model's cache is handed on under the name that the model takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from toolguard.integrations.transformers import feed


class Model:
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.given: list[Any] = []

    def answer(self, given: Any) -> SimpleNamespace:
        self.given.append(given)
        return SimpleNamespace(
            logits=torch.zeros(1, 1, 4), cache="new", past_key_values="new, with a warning"
        )

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        return self.forward(**inputs)

    def forward(self, **inputs: Any) -> SimpleNamespace:
        assert "past_key_values" not in inputs
        return self.answer(inputs["cache"])


class Renamed(Model):
    def forward(self, input_ids: Any, cache: Any = None, **others: Any) -> SimpleNamespace:
        assert "past_key_values" not in others
        return self.answer(cache)


class OfItsOwn(Model):
    """Code that is older than the library."""

    def forward(
        self, input_ids: Any, past_key_values: Any = None, **others: Any
    ) -> SimpleNamespace:
        assert "cache" not in others
        return self.answer(past_key_values)


@pytest.mark.parametrize("kind", [Model, Renamed, OfItsOwn])
def test_the_cache_goes_by_the_name_that_the_model_takes(
    kind: type[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_NAME", "cache")  # as from transformers 5.24 on
    model: Any = kind()
    fed = feed.Feed(model, 1)
    fed.feed([[1, 2]])
    fed.feed([[3]])
    assert model.given == [None, "new"]
