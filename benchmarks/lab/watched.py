"""What a watch would have read in turns of the lab: the steps of toolguard's reports."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from benchmarks.lab.batches import collate, encode
from benchmarks.lab.cases import Case
from benchmarks.lab.decode import LIMIT, Turn
from benchmarks.lab.regions import Region, regions
from benchmarks.lab.tokenizer import render, spell
from toolguard import Guard, Step, WireFormat
from toolguard.report.report import GATE, Position

FORMAT = WireFormat.load("hermes")
PLACES: dict[Region, Position] = {
    "turn_start": "start",
    "after_opener": "opened",
    "after_body": "structure",
    "after_closer": "closed",
    "text": "text",
}


@torch.inference_mode()
def watched(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    cases: Sequence[Case],
    turns: Sequence[Turn],
) -> list[list[Step]]:
    """The steps of each turn, read by feeding it to the model that wrote it.

    Up to the first illegal token of a turn, the guard's masks tell how much mass is illegal.
    """
    prompts = [encode(tokenizer, render(tokenizer, case)) for case in cases]
    batch = collate(prompts, [turn.ids for turn in turns], tokenizer.pad_token_id)
    logits = model(
        input_ids=batch.ids,
        attention_mask=batch.attention,
        position_ids=batch.positions,
        logits_to_keep=batch.ids.shape[1] - batch.width + 1,
    ).logits
    masses = logits[:, :-1].softmax(-1).numpy()
    return [
        steps(tokenizer, case, turn.ids, row)
        for case, turn, row in zip(cases, turns, masses, strict=True)
    ]


def steps(
    tokenizer: PreTrainedTokenizerFast, case: Case, ids: list[int], masses: "np.ndarray"
) -> list[Step]:
    """`masses` has one row a token, over the vocabulary."""
    state = Guard.compile(FORMAT, case.tools, tokenizer).start(2 * LIMIT)
    control = controls(tokenizer)
    legal, found = True, []
    for number, (token, position) in enumerate(zip(ids, positions(tokenizer, ids), strict=True)):
        row = masses[number]
        reached = {text: float(row[i]) for text, i in control.items() if row[i] >= GATE}
        illegal = 0.0
        if legal:
            mask = state.mask().view(np.uint8)
            bits = np.unpackbits(mask, bitorder="little")[: len(row)].astype(bool)
            if reached or not bits[row.argmax()]:
                illegal = float(row[~bits].sum())
            legal = state.accept(token)
        found.append(
            Step(
                step=number,
                region="text" if position in ("start", "text", "closed") else "call",
                position=position,
                token=spell(tokenizer, [token]),
                token_id=token,
                masses=reached,
                illegal=illegal,
                pressure=-float(np.log1p(-min(illegal, 1 - 1e-9))),
                rank=int((row > row[token]).sum()) + 1,
            )
        )
    return found


def positions(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[Position]:
    """The position before each token; inside a call it is a value if a quote is open."""
    found: list[Position] = []
    body = ""
    for token, region in zip(ids, regions(tokenizer, ids), strict=True):
        if region == "in_call":
            found.append("value" if body.replace('\\"', "").count('"') % 2 else "structure")
        else:
            found.append(PLACES[region])
        body = body + spell(tokenizer, [token]) if region in ("after_opener", "in_call") else ""
    return found


@cache
def controls(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    vocabulary = tokenizer.get_vocab()
    return {text: vocabulary[text] for text in FORMAT.controls if text in vocabulary}
