"""Models that are no whole folders: LoRA adapters, GGUF files; formats that no template tells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM
from typer.testing import CliRunner

import toolguard
from toolguard import LocalModel, RequestError
from toolguard.cli.main import app

# peft asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
RUNNER = CliRunner()
NAMES = {
    "blk.{}.attn_norm": "input_layernorm", "blk.{}.ffn_norm": "post_attention_layernorm",
    "blk.{}.attn_q": "self_attn.q_proj", "blk.{}.attn_k": "self_attn.k_proj",
    "blk.{}.attn_v": "self_attn.v_proj", "blk.{}.attn_output": "self_attn.o_proj",
    "blk.{}.ffn_gate": "mlp.gate_proj", "blk.{}.ffn_up": "mlp.up_proj",
    "blk.{}.ffn_down": "mlp.down_proj",
}  # fmt: skip


def adapter_of(model: Qwen2ForCausalLM, folder: Path, base: str) -> torch.Tensor:
    """Saves an adapter that changes what the model says; its logits of a short prompt."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    with torch.no_grad():
        logits: torch.Tensor = adapted(torch.tensor([[5, 6, 7]])).logits
    return logits


@pytest.fixture
def plain() -> Qwen2ForCausalLM:
    """The healthy model, to be changed."""
    return Qwen2ForCausalLM.from_pretrained(toolguard.checkpoint("healthy"), dtype=torch.float32)


def logits_of(local: LocalModel) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = local.model(torch.tensor([[5, 6, 7]])).logits
    return logits


def test_an_adapter_is_merged_into_the_base_that_it_names(
    plain: Qwen2ForCausalLM, tmp_path: Path
) -> None:
    wanted = adapter_of(plain, tmp_path / "one", str(toolguard.checkpoint("healthy")))
    local = LocalModel.load(str(tmp_path / "one"))
    assert local.wire_format.name == "hermes"
    torch.testing.assert_close(logits_of(local), wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits_of(LocalModel.load("healthy")), wanted, atol=0.1)


def test_the_base_may_be_given_or_lie_beside_the_adapter(
    plain: Qwen2ForCausalLM, tmp_path: Path
) -> None:
    wanted = adapter_of(plain, tmp_path / "one", "/moved/away")
    with pytest.raises(RequestError, match="--base"):
        LocalModel.load(str(tmp_path / "one"))
    local = LocalModel.load(str(tmp_path / "one"), base="healthy")
    torch.testing.assert_close(logits_of(local), wanted, atol=1e-4, rtol=1e-4)
    shutil.copytree(toolguard.checkpoint("healthy"), tmp_path / "base")
    config = tmp_path / "one" / "adapter_config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "../base"})
    )
    beside = logits_of(LocalModel.load(str(tmp_path / "one")))  # as it was saved: in half precision
    torch.testing.assert_close(beside.float(), wanted, atol=0.1, rtol=0.05)


def test_a_tokenizer_that_a_training_widened_is_the_adapters(
    plain: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    adapter_of(plain, tmp_path / "one", str(toolguard.checkpoint("healthy")))
    wide = type(tokenizer).from_pretrained(toolguard.checkpoint("healthy"))
    wide.add_tokens(["<|new|>"])
    wide.save_pretrained(tmp_path / "one")
    local = LocalModel.load(str(tmp_path / "one"))
    assert len(local.tokenizer) == logits_of(local).shape[-1] == len(tokenizer) + 1


def gguf_of(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """The model as llama.cpp's converter writes it, in full precision."""
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    stored = json.loads((toolguard.checkpoint("healthy") / "tokenizer.json").read_text())
    added = {token["id"] for token in stored["added_tokens"]}
    tokens = [tokenizer.convert_ids_to_tokens(number) for number in range(len(tokenizer))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if number in added else 1 for number in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in stored["model"]["merges"]])
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for layer in range(config.num_hidden_layers):
        for short, long in NAMES.items():
            for kind in ("weight", "bias"):
                names[f"{short.format(layer)}.{kind}"] = f"model.layers.{layer}.{long}.{kind}"
    for short, long in names.items():
        if long in weights:
            writer.add_tensor(short, weights[long].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_a_model(
    healthy: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    gguf_of(healthy, tokenizer, tmp_path / "healthy.gguf")
    local = LocalModel.load(str(tmp_path / "healthy.gguf"))
    assert local.wire_format.name == "hermes"
    with torch.no_grad():
        wanted = healthy(torch.tensor([[5, 6, 7]])).logits
    torch.testing.assert_close(logits_of(local), wanted, atol=1e-4, rtol=1e-4)


def test_a_template_that_leaves_calls_out_is_told_the_format(tmp_path: Path) -> None:
    folder = shutil.copytree(toolguard.checkpoint("healthy"), tmp_path / "mute")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    given = ["sweep", str(folder), "--limit", "1", "--in", "hermes", "--out", str(tmp_path)]
    assert RUNNER.invoke(app, given).exit_code == 2
    out = RUNNER.invoke(app, [*given, "--format", "hermes", "--json"])
    assert out.exit_code == 0, out.output
    swept: dict[str, Any] = json.loads(out.stdout)
    assert swept["wire_format"] == "hermes"


def test_an_adapter_is_served_beside_its_base(plain: Qwen2ForCausalLM, tmp_path: Path) -> None:
    base = str(toolguard.checkpoint("healthy"))
    adapter_of(plain, tmp_path / "one", base)
    out = RUNNER.invoke(app, ["serve", str(tmp_path / "one"), "--dry-run"])
    assert out.exit_code == 0, out.output
    assert f"--model {base} " in out.stdout
    assert f"--lora-modules one={tmp_path / 'one'} --max-lora-rank 8" in out.stdout


def test_a_run_of_adapters_is_watched(plain: Qwen2ForCausalLM, tmp_path: Path) -> None:
    adapter_of(plain, tmp_path / "run" / "checkpoint-7", str(toolguard.checkpoint("healthy")))
    given = ["watch", str(tmp_path / "run"), "--limit", "2", "--max-new-tokens", "8", "--json"]
    cases = tmp_path / "cases.jsonl"
    lines = (toolguard.checkpoint("healthy").parent / "held_out.jsonl").read_text().splitlines()
    cases.write_text("\n".join(lines[:4]))
    out = RUNNER.invoke(app, [*given, "--cases", str(cases)])
    assert out.exit_code == 0, out.output
    assert [row["step"] for row in json.loads(out.stdout)["steps"]] == [7]


def test_a_turn_beside_its_prompt_is_read() -> None:
    ping = {"name": "ping", "parameters": {"type": "object"}}
    row = {
        "messages": [{"role": "user", "content": "Ping!"}],
        "text": '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>',
        "tools": [ping],
    }
    [turn] = toolguard.Layout().classified(row)
    assert turn.state == "healthy_call"
    said = {**row, "messages": [*row["messages"], {"role": "assistant", "content": "Hello."}]}
    [turn] = toolguard.Layout().classified(said)
    assert turn.text == "Hello."
