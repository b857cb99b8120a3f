"""What the suite's makers measured of other engines, for comparison: facts, not ours."""

from __future__ import annotations

PUBLISHED_ON = "2026-09-25"
FAILS: dict[str, dict[str, int]] = {
    "deepseek": {"vLLM 0.30.0": 33, "SGLang 0.5.20": 28, "llama.cpp a25c9865": 29},
    "gemma4": {
        "vLLM 0.30.0": 16,
        "SGLang 0.5.20": 13,
        "llama.cpp a25c9865": 8,
        "transformers 5.17.0": 8,
    },
    "glm": {"vLLM 0.30.0": 7, "SGLang 0.5.20": 24, "llama.cpp a25c9865": 8},
    "gpt-oss": {"vLLM 0.30.0": 5, "SGLang 0.5.20": 32, "llama.cpp a25c9865": 8},
    "kimi": {"vLLM 0.30.0": 8, "SGLang 0.5.20": 5, "llama.cpp a25c9865": 14},
    "llama": {"vLLM 0.30.0": 25, "SGLang 0.5.20": 25, "llama.cpp a25c9865": 10},
    "mistral": {"vLLM 0.30.0": 7, "SGLang 0.5.20": 23, "llama.cpp a25c9865": 19},
    "qwen3-hermes": {"vLLM 0.30.0": 9, "SGLang 0.5.20": 39, "llama.cpp a25c9865": 11},
    "qwen3-xml": {"vLLM 0.30.0": 5, "SGLang 0.5.20": 8, "llama.cpp a25c9865": 7},
}
"""Fixtures that an engine's own parsers fail, by family; engines do not support all fixtures."""
TOTALS = {
    "vLLM 0.30.0": (115, 469),
    "SGLang 0.5.20": (197, 448),
    "llama.cpp a25c9865": (114, 438),
    "Ollama 7af39318": (27, 261),
    "transformers 5.17.0": (8, 48),
}
"""Fails, and fixtures that the engine supports."""


def best(family: str) -> int:
    """The fewest fails that any engine was measured to have."""
    return min(FAILS[family].values())
