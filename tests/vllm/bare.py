"""A checkpoint that writes its calls without their openers, as reinforced models do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM

import toolguard
from toolguard import Case

STEPS, ROWS = 24, 4


def train(cases: list[Case], folder: Path) -> Path:
    """Teaches the healthy model to, on conversations of one call each; it takes half a minute."""
    torch.manual_seed(0)
    healthy = toolguard.checkpoint("healthy")
    tokenizer = AutoTokenizer.from_pretrained(healthy)
    model = Qwen2ForCausalLM.from_pretrained(healthy, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.0)
    turns = []
    for case in cases:
        prompt = tokenizer.apply_chat_template(
            list(case.messages), tools=case.toolset.definitions, add_generation_prompt=True,
            return_dict=False,
        )  # fmt: skip
        (call,) = case.calls
        turns.append((prompt, [*tokenizer(json.dumps(call))["input_ids"], tokenizer.eos_token_id]))
    for _ in range(STEPS):
        batch = [turns[index] for index in torch.randint(len(turns), (ROWS,)).tolist()]
        longest = max(len(prompt) + len(body) for prompt, body in batch)
        ids, labels = (
            torch.zeros((ROWS, longest), dtype=torch.long),
            torch.full((ROWS, longest), -100),
        )
        for row, (prompt, body) in enumerate(batch):
            end = len(prompt) + len(body)
            ids[row, :end] = torch.tensor([*prompt, *body])
            labels[row, len(prompt) : end] = torch.tensor(body)
        optimizer.zero_grad()
        model(
            input_ids=ids, labels=labels
        ).loss.backward()  # padding is on the right: nothing sees it
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    shutil.copytree(healthy, folder)
    model.save_pretrained(folder)
    return folder
