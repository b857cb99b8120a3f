"""Models that commands run: a folder, or the name of a bundled checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints import checkpoint, checkpoint_names
from ..errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def folder(model: str) -> str:
    """The folder of a model: a bundled checkpoint's, or one with a config.json."""
    if model in checkpoint_names():
        return str(checkpoint(model))
    if not (Path(model) / "config.json").is_file():
        known = ", ".join(checkpoint_names())
        raise RequestError(
            f"no model in {model!r}: give a folder with a config.json, or one of {known}"
        )
    return model


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def load_model(folder: str) -> PreTrainedModel:
    """The model in a folder, on the GPU where there is one.

    A bundled checkpoint, which is saved in half precision, runs in single.
    """
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    bundled = Path(folder).parent == checkpoint("healthy").parent
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if bundled else "auto")
    assert isinstance(model, PreTrainedModel)
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    return model
