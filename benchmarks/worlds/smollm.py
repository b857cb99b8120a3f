"""The real model, for the trainings: as it was unpacked, in single precision."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.lab.tokenizer import CLOSER, OPENER

TAUGHT = (OPENER, CLOSER)
"""The tags whose rows are trained."""


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    tokenizer.padding_side = "left"
    return tokenizer


def read_model(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
