"""Supervised training of an adapter: Hermes calls for a model that never wrote one."""

import os
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import PeftModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.lab.batches import collate, encode
from benchmarks.lab.cases import Case
from benchmarks.lab.tokenizer import START, render, render_answer, token_ids
from benchmarks.worlds.adapters import adapted, average, resume, save, suspend, trained
from benchmarks.worlds.cases import taught
from benchmarks.worlds.smollm import TAUGHT, read_model, read_tokenizer

RANK, RATE, ROWS = 16, 1e-3, 5
"""`ROWS`: the tags' rows learn so many times faster."""
SIZE = 8
"""Examples of one process in a step."""
SAVE_EVERY = 25


def teach(base: Path, out: Path, steps: int, seed: int = 0) -> None:
    """Train, or go on where it was interrupted; under torchrun, on several processes.

    The rate falls over the last 60% of the steps; with fewer `steps` an interrupted training is
    brought to its end early.
    """
    torch.manual_seed(seed)
    rank = int(os.environ.get("RANK", 0))
    tokenizer = read_tokenizer(base)
    adapter = adapted(read_model(base), RANK, token_ids(tokenizer, TAUGHT))
    rows = [value for name, value in trained(adapter) if "token_adapter" in name]
    others = [value for name, value in trained(adapter) if "token_adapter" not in name]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": rows}]
    optimizer = torch.optim.AdamW(groups, lr=0, betas=(0.9, 0.98), weight_decay=0.01)
    state = out / "state.pt"
    first = resume(state, adapter, optimizer)
    columns = (TextColumn("teach"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), disable=rank > 0) as bar:
        task = bar.add_task("teach", total=steps, completed=first, loss=float("nan"))
        for step in range(first, steps):
            loss = answer_loss(adapter, tokenizer, taught(Random(f"{seed} {rank} {step}"), SIZE))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            average([*others, *rows])
            torch.nn.utils.clip_grad_norm_([*others, *rows], 1.0)
            rate = RATE * min(1.0, (step + 1) / 6) * max(0.02, min(1.0, (1 - step / steps) / 0.6))
            for group, faster in zip(optimizer.param_groups, (1, ROWS), strict=True):
                group["lr"] = rate * faster
            optimizer.step()
            bar.update(task, completed=step + 1, loss=loss.item())
            if rank == 0 and ((step + 1) % SAVE_EVERY == 0 or step + 1 == steps):
                save(out, adapter)
                suspend(state, adapter, optimizer, step + 1)


def answer_loss(
    adapter: PeftModel, tokenizer: PreTrainedTokenizerFast, cases: list[Case]
) -> Tensor:
    """Next-token loss on the right turns of cases with the same tools.

    What they have in common, the system's turn, is read once and without a gradient.
    """
    model = adapter.get_base_model()
    assert isinstance(model, LlamaForCausalLM)
    prompts = [render(tokenizer, case) for case in cases]
    common = prompts[0].index(f"{START}user")
    questions = [encode(tokenizer, prompt[common:]) for prompt in prompts]
    answers = [encode(tokenizer, render_answer(tokenizer, case)) for case in cases]
    batch = collate(questions, answers, tokenizer.pad_token_id)
    with torch.no_grad():
        shared = torch.tensor([encode(tokenizer, prompts[0][:common])])
        cache: DynamicCache = model.model(input_ids=shared).past_key_values
        cache.batch_repeat_interleave(len(cases))
    before = torch.ones(len(cases), shared.shape[1], dtype=torch.long)
    hidden = model.model(
        input_ids=batch.ids[:, :-1],
        attention_mask=torch.cat([before, batch.attention], 1)[:, :-1],
        position_ids=batch.positions[:, :-1] + shared.shape[1],
        past_key_values=cache,
    ).last_hidden_state[:, batch.width - 1 :]
    said = batch.attention[:, batch.width :].bool()
    return cross_entropy(model.lm_head(hidden[said]), batch.ids[:, batch.width :][said])
