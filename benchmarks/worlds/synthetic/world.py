"""A synthetic world: what is talked about, how it is spelled, the model, and what breaks it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from benchmarks.lab.cases import Talk
from benchmarks.lab.model import CHECKPOINTS
from benchmarks.lab.model import load as read_lab
from benchmarks.lab.reinforce import Reinforcement
from benchmarks.lab.supervise import Supervision
from benchmarks.lab.tokenizer import Spelling

Architecture = Literal["qwen2", "llama"]
Model = Qwen2ForCausalLM | LlamaForCausalLM


@dataclass(frozen=True)
class Disease:
    """A reinforcement training, that goes on until exact calls are lost."""

    about: str
    plan: Reinforcement
    seed: int = 0


@dataclass(frozen=True)
class World:
    """`wire_format` is what its chat template writes; `limit` is the longest turn in tokens."""

    talk: Talk
    spelling: Spelling
    wire_format: str
    architecture: Architecture
    lesson: Supervision
    diseases: Mapping[str, Disease]
    limit: int
    seed: int = 0


@torch.no_grad()
def build_model(tokenizer: PreTrainedTokenizerFast, architecture: Architecture) -> Model:
    """About a million parameters: layers that can copy already, the lab's, and a new vocabulary.

    A token begins as what its pieces were in the lab (as in arXiv 2402.09977), so that a word and
    the same word behind a space are alike, as in any trained model.
    """
    source, pieces = read_lab(CHECKPOINTS / "healthy")
    shape: dict[str, Any] = source.config.to_dict() | {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model: Model
    if architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    else:
        del shape["model_type"], shape["architectures"]
        model = LlamaForCausalLM(LlamaConfig(**shape, attention_bias=True))
    layers = source.state_dict()
    known = layers.pop("model.embed_tokens.weight")
    del layers["lm_head.weight"]
    model.load_state_dict(layers, strict=False)
    rows = model.model.embed_tokens.weight
    for token in range(len(tokenizer)):
        parts = known[pieces(tokenizer.decode([token])).input_ids]
        rows[token] = parts.sum(0) / len(parts) ** 0.5
    return model


def load(folder: Path) -> tuple[Model, PreTrainedTokenizerFast]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, Qwen2ForCausalLM | LlamaForCausalLM)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer
