"""Tests in two sizes: `pytest` runs the small one, `pytest -m slow` the large one."""

from __future__ import annotations

from typing import Any

import pytest


def sizes(small: Any, large: Any) -> pytest.MarkDecorator:
    """A test of the same promise, with the same bounds, on little (`size`) and on much."""
    return pytest.mark.parametrize("size", [small, pytest.param(large, marks=pytest.mark.slow)])
