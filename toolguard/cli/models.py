"""Models that commands run: a folder, a name on the hub, or the name of a bundled checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints import checkpoint, checkpoint_names
from ..errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def folder(model: str) -> str:
    """The folder of a model: a bundled checkpoint's, or one with a config.json; a name on the hub
    stays as it is."""
    if model in checkpoint_names():
        return str(checkpoint(model))
    named = re.fullmatch(r"\w[\w.-]*/[\w.-]+", model) and not Path(model).exists()
    if not named and not (Path(model) / "config.json").is_file():
        known = ", ".join(checkpoint_names())
        raise RequestError(
            f"no model in {model!r}: give a folder with a config.json, the name of a model on the "
            f"hub (ORGANISATION/NAME), or one of {known}"
        )
    return model


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    with _loading("tokenizer", folder):
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
    bundled = Path(folder).resolve().parent == checkpoint("healthy").resolve().parent
    with _loading("model", folder):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32 if bundled else "auto"
        )
    assert isinstance(model, PreTrainedModel)
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    return model


@contextmanager
def _loading(what: str, folder: str) -> Iterator[None]:
    """One line about what does not load: transformers and safetensors raise anything."""
    try:
        yield
    except Exception as error:
        said = str(error).strip().splitlines() or [repr(error)]
        raise RequestError(f"cannot load the {what} of {folder}: {said[0]}") from error
