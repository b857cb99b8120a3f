"""Tests in two sizes: `pytest` runs the small one, `pytest -m slow` the large one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count
from typing import Any

import pytest

from toolguard import format_names

ENCODINGS = (
    *("hermes", "qwen3_xml", "glm_xml", "dsml", "pythonic", "lfm2", "gemma4", "cohere_xml"),
    *("minicpm5", "minimax_m3", "kimi_k3", "k2_horizon"),
)
"""A format of each way of writing arguments, for promises that are about nothing else."""


def sizes(small: Any, large: Any) -> pytest.MarkDecorator:
    """A test of the same promise, with the same bounds, on little (`size`) and on much."""
    return pytest.mark.parametrize("size", [small, pytest.param(large, marks=pytest.mark.slow)])


def formats(small: Collection[str] = ENCODINGS) -> pytest.MarkDecorator:
    """A test of every format, of these alone in the small run."""
    return pytest.mark.parametrize("name", [_param(n in small, n) for n in format_names()])


def in_turn(
    argument: str,
    values: Sequence[Any],
    names: Sequence[str] = format_names(),
    small: Collection[str] = format_names(variants=True),
) -> pytest.MarkDecorator:
    """A test of each format with each of the values; in the small run with one of them, in turn,
    and of these formats alone."""
    turn = count()
    first = {name: next(turn) % len(values) for name in names if name in small}
    params = [
        _param(first.get(name) == place, name, value)
        for name in names
        for place, value in enumerate(values)
    ]
    return pytest.mark.parametrize(("name", argument), params)


def _param(small: bool, *values: Any) -> Any:
    return pytest.param(*values, marks=() if small else pytest.mark.slow)
