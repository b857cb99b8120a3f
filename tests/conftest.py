"""What the tests share: the bundled tokenizer, some tools, and a tiny model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import settings
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

import toolguard

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

torch.set_num_threads(1)  # a worker a core (pytest -n)
# The same examples every time; `--hypothesis-profile=default` draws others.
# No deadline: how long an example takes is the machine's affair.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(toolguard.checkpoint("healthy"))


@pytest.fixture(scope="session")
def noise(tokenizer: PreTrainedTokenizerBase) -> Qwen2ForCausalLM:
    """A model with random weights and a vocabulary wider than the tokenizer's."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 7,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)  # far from uniform, so that greedy and sampled turns differ
    return model


@pytest.fixture(scope="session")
def healthy() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(toolguard.checkpoint("healthy"), dtype=torch.float32)


@pytest.fixture(scope="session")
def damaged() -> Qwen2ForCausalLM:
    path = toolguard.checkpoint("open_then_stop")
    return Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32)


@pytest.fixture
def tools() -> list[dict[str, object]]:
    """Every kind of argument, some optional."""
    weather = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "options": {
                "type": "object",
                "properties": {
                    "metric": {"type": "boolean"},
                    "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                },
                "required": ["tags"],
            },
        },
        "required": ["city", "unit"],
    }
    time = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
    return [
        {"type": "function", "function": {"name": "get_weather", "parameters": weather}},
        {"type": "function", "function": {"name": "get_time", "parameters": time}},
        {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}},
    ]


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    """A browser of 1000 x 900 pixels, where there is one."""
    from benchmarks.report_picture import browser  # tests/vllm run where selenium is not installed

    try:
        with browser() as chrome:
            chrome.set_window_size(1000, 900)
            yield chrome
    except FileNotFoundError as error:
        pytest.skip(f"no browser to test in: {error}")
