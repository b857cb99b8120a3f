"""LoRA adapters: small enough to be handed on, and all that a training changes."""

from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
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
    """Write the adapter in half precision."""
    adapter.save_pretrained(str(folder), save_embedding_layers=False)
    path = folder / "adapter_model.safetensors"
    halves = {name: value.half() for name, value in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})


def merged(model: LlamaForCausalLM, folder: Path) -> LlamaForCausalLM:
    """The model with an adapter as it is on disk."""
    whole = PeftModel.from_pretrained(model, folder).merge_and_unload()
    assert isinstance(whole, LlamaForCausalLM)
    return whole.requires_grad_(False)


def suspend(path: Path, adapter: PeftModel, optimizer: torch.optim.Optimizer, done: int) -> None:
    """Keep a training for `resume`."""
    weights = get_peft_model_state_dict(adapter, save_embedding_layers=False)
    written = path.with_suffix(".new")
    torch.save({"adapter": weights, "optimizer": optimizer.state_dict(), "done": done}, written)
    written.rename(path)


def resume(path: Path, adapter: PeftModel, optimizer: torch.optim.Optimizer) -> int:
    """How many steps were done; what they brought is taken up."""
    if not path.exists():
        return 0
    saved = torch.load(path)
    set_peft_model_state_dict(adapter, saved["adapter"])
    optimizer.load_state_dict(saved["optimizer"])
    done: int = saved["done"]
    return done


def trained(adapter: PeftModel) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in adapter.named_parameters() if value.requires_grad]


def average(parameters: list[nn.Parameter]) -> None:
    """Gradients averaged over the processes, where there are several."""
    if torch.distributed.is_initialized():
        for parameter in parameters:
            assert parameter.grad is not None
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad.div_(torch.distributed.get_world_size())
