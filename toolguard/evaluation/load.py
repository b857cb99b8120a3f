"""Models from where they lie: folders, GGUF files, LoRA adapters, the hub, the bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints import checkpoint, checkpoint_names
from ..checkpoints.smollm import SMOLLM, cached, real_adapter, real_names, unpacked
from ..errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Source:
    """Where a model lies.

    Attributes:
        path: a folder, a GGUF file, or a name on the hub.
        base: of a LoRA adapter, the model that it was trained on; None where the model is whole.
    """

    path: str
    base: Source | None = None

    @staticmethod
    def of(model: str, base: str | None = None) -> Source:
        """Where a model lies that a user named.

        Args:
            model: a folder with a config.json, a GGUF file, the folder of a LoRA adapter, a name on
                the hub, or a bundled checkpoint's or adapter's name.
            base: of an adapter, the model that it was trained on; its configuration names one.

        Raises:
            RequestError: there is no model, or the base of an adapter is not known.
        """
        if model in checkpoint_names():
            return Source(str(checkpoint(model)))
        if model == SMOLLM:
            return Source(str(unpacked()))
        path = real_adapter(model) if model in real_names() else Path(model)
        if (path / ADAPTER).is_file():
            return Source(str(path), Source.of(base or _base_of(path)))
        named = re.fullmatch(r"\w[\w.-]*/[\w.-]+", model) and not path.exists()
        if not named and not (path / "config.json").is_file() and not _is_gguf(path):
            known = ", ".join((*checkpoint_names(), *real_names()))
            raise RequestError(
                f"no model in {model!r}: give a folder with a config.json or an {ADAPTER}, a GGUF "
                f"file, the name of a model on the hub (ORGANISATION/NAME), or one of {known}"
            )
        return Source(model)

    @property
    def has_tokenizer(self) -> bool:
        """Whether a LoRA adapter has a tokenizer of its own."""
        return (Path(self.path) / "tokenizer_config.json").is_file()

    def files(self) -> list[Path]:
        """The files that a model is read from, with its base's; none where the hub has them."""
        path = Path(self.path)
        own = [path] if _is_gguf(path) else sorted(it for it in path.glob("*") if it.is_file())
        return own + (self.base.files() if self.base else [])


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """A model's tokenizer; an adapter that has none of its own has its base's."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    path = Path(source.path)
    if source.base and not source.has_tokenizer:
        return load_tokenizer(source.base)
    with _loading("tokenizer", source):
        tokenizer = (
            AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
            if _is_gguf(path)
            else AutoTokenizer.from_pretrained(source.path)
        )
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def load_model(source: Source) -> PreTrainedModel:
    """A model, on the GPU where there is one; a LoRA adapter is merged into its base.

    A bundled checkpoint, which is saved in half precision, runs in single.
    """
    import torch
    from transformers import PreTrainedModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with _loading("model", source):
        model = _whole(source) if source.base is None else _merged(source, source.base)
    assert isinstance(model, PreTrainedModel)
    if torch.cuda.is_available():
        torch.nn.Module.to(model, "cuda")
    return model


def _whole(source: Source) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedModel

    path = Path(source.path)
    if _is_gguf(path):
        model = AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype="auto"
        )
    else:
        bundled = path.resolve().parent == checkpoint("healthy").resolve().parent
        dtype = torch.float32 if bundled or path == cached() else "auto"
        model = AutoModelForCausalLM.from_pretrained(source.path, dtype=dtype)
    assert isinstance(model, PreTrainedModel)
    return model


def _merged(source: Source, base: Source) -> PreTrainedModel:
    """The base with the adapter's weights; a training may have given it more tokens."""
    from transformers import PreTrainedModel

    try:
        from peft import PeftModel
    except ImportError as error:
        raise RequestError("a LoRA adapter is loaded by peft: pip install peft") from error
    model = load_model(base)
    tokens = len(load_tokenizer(source)) if source.has_tokenizer else 0
    if tokens > model.get_input_embeddings().weight.shape[0]:  # type: ignore[index]
        model.resize_token_embeddings(tokens)
    merged = PeftModel.from_pretrained(model, source.path).merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged


def adapter_config(adapter: Path) -> dict[str, Any]:
    """What the configuration of a LoRA adapter says.

    Raises:
        RequestError: it is no JSON object.
    """
    try:
        config = json.loads((adapter / ADAPTER).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read {adapter / ADAPTER}: {error}") from error
    if not isinstance(config, dict):
        raise RequestError(f"{adapter / ADAPTER} is no JSON object: save the adapter again")
    return config


def _base_of(adapter: Path) -> str:
    """The base that an adapter's configuration names; a path may be told from the adapter on."""
    named = adapter_config(adapter).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise RequestError(f"{adapter / ADAPTER} names no base model: give it by --base")
    beside = adapter / named
    if not Path(named).exists() and beside.exists():
        return str(beside)
    if Path(named).is_absolute() and not Path(named).exists():
        raise RequestError(
            f"the base of the adapter {adapter}, {named}, is not here: give it by --base"
        )
    return named


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and path.is_file()


@contextmanager
def _loading(what: str, source: Source) -> Iterator[None]:
    """One line about what does not load: transformers, peft and safetensors raise anything."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or [repr(error)]
        raise RequestError(f"cannot load the {what} of {source.path}: {said[0]}") from error
