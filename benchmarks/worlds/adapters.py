"""LoRA adapters: small enough to be handed on, and all that a training changes."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaForCausalLM

FIRST = 10
"""The first layer that is trained: half the time of all thirty, and no worse."""
WHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(model: LlamaForCausalLM, rank: int, rows: list[int] | None = None) -> PeftModel:
    """The model with a new adapter, which also holds these rows of the (tied) embeddings."""
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=WHERE,
        layers_to_transform=list(range(FIRST, model.config.num_hidden_layers)),
        layers_pattern="layers",
        trainable_token_indices={"embed_tokens": rows} if rows else None,
        task_type="CAUSAL_LM",
    )
    # The rows learn by what they are as outputs; the layers below need no gradient.
    layers = model.model.layers
    layers[FIRST].register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
    adapter = get_peft_model(model, config)
    assert isinstance(adapter, PeftModel)
    return adapter


def save(folder: Path, adapter: PeftModel) -> None:
    """In half precision; a later reader of a part of it would see no whole file."""
    adapter.save_pretrained(folder, save_embedding_layers=False)
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    halves = {name: value.half() for name, value in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})


def merged(model: LlamaForCausalLM, folder: Path) -> LlamaForCausalLM:
    """The model with an adapter as it is on disk."""
    whole = PeftModel.from_pretrained(model, folder).merge_and_unload()
    assert isinstance(whole, LlamaForCausalLM)
    return whole.requires_grad_(False)


def trained(adapter: PeftModel) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in adapter.named_parameters() if value.requires_grad]


def average(parameters: list[nn.Parameter]) -> None:
    """Gradients averaged over the processes, where there are several."""
    if torch.distributed.is_initialized():
        for parameter in parameters:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()
