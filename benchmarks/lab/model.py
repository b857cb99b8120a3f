"""The lab's model, and how it is saved: half precision on disk, single precision in use."""

from copy import deepcopy
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from benchmarks.lab.initial import near_induction

CHECKPOINTS = Path(__file__).parents[2] / "toolguard" / "checkpoints"


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2ForCausalLM:
    """About a million parameters in a shape that transformers and vLLM run."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    near_induction(model, seed)
    return model


def save(
    folder: Path, model: Qwen2ForCausalLM | LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write a checkpoint in half precision; `model` itself stays as it is."""
    rounded = deepcopy(model)
    torch.nn.Module.to(rounded, torch.float16)
    rounded.generation_config.eos_token_id = tokenizer.eos_token_id
    rounded.generation_config.pad_token_id = tokenizer.pad_token_id
    rounded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer
