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
from benchmarks.lab.initial import near_induction
from benchmarks.lab.reinforce import Reinforcement
from benchmarks.lab.supervise import Supervision
from benchmarks.lab.tokenizer import Spelling

Architecture = Literal["qwen2", "llama"]
Model = Qwen2ForCausalLM | LlamaForCausalLM
ALIKE = 0.8
"""How much a word has in common, at first, with the same word behind a space."""


@dataclass(frozen=True)
class Disease:
    """A reinforcement training, and the rate that is lost when it is far enough."""

    about: str
    plan: Reinforcement
    lost: str
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


def build_model(tokenizer: PreTrainedTokenizerFast, architecture: Architecture, seed: int) -> Model:
    """About a million parameters that nearly copy already (see `lab.initial`)."""
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.05,
    }
    torch.manual_seed(seed)
    model: Model
    if architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape, attention_bias=True))
    near_induction(model, seed)
    _spaced_alike(model, tokenizer)
    return model


@torch.no_grad()
def _spaced_alike(model: Model, tokenizer: PreTrainedTokenizerFast) -> None:
    """Words behind a space start out like the words themselves, as they are in any trained model:
    what is copied from a sentence into a call has lost its space."""
    rows = model.get_input_embeddings().weight
    vocabulary = tokenizer.get_vocab()
    for token, row in vocabulary.items():
        bare = vocabulary.get(token.removeprefix("Ġ"), row)
        if bare != row:
            rows[row] = ALIKE * rows[bare] + (1 - ALIKE**2) ** 0.5 * rows[row]


def load(folder: Path) -> tuple[Model, PreTrainedTokenizerFast]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer
