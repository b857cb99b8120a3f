"""Teacher forcing: what a model would have said, had its turn been right so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding.decision import opener_odds
from ..decoding.guard import Guard, turn_ends
from ..decoding.structure import control_tokens, structure_tokens
from ..formats.reader import fixed_text
from ..formats.wire_format import WireFormat
from ..grammar.request import reasoning_after
from ..integrations.transformers.generate import end_tokens, prompt_of
from ..policy.enforce import observe
from .cases import Case
from .forced import Forced
from .right_turn import RightTurn, right_turn

_ROOM = 256  # a budget that no right turn comes near: no mask is narrowed


@torch.inference_mode()
def force(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[Case],
    wire_format: WireFormat,
    *,
    batch: int = 16,
) -> Iterator[Forced]:
    """Feeds a model the right turns of cases, each batch in one pass.

    Where no right turn is known (`toolguard.Case.reply`), what the watch reads of the first token
    is all that there is.

    Raises:
        FormatError: the format cannot write the calls of a case.
    """
    ends = end_tokens(model, tokenizer, wire_format)
    for first in range(0, len(cases), batch):
        rows = [_row(tokenizer, case, wire_format, ends) for case in cases[first : first + batch]]
        longest = max(len(row.prompt) + len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        attention = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            # right-aligned: the last logits are those of the turns
            whole = torch.tensor([*row.prompt, *row.ids])
            ids[place, longest - len(whole) :] = whole
            attention[place, longest - len(whole) :] = 1
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=attention.to(model.device),
            position_ids=(attention.cumsum(1) - 1).clamp(min=0).to(model.device),
            logits_to_keep=1 + max(len(row.ids) for row in rows),
        ).logits
        yield from _read(rows, [logits[at, -1 - len(row.ids) :] for at, row in enumerate(rows)])


@dataclass(frozen=True)
class _Row:
    case: Case
    guard: Guard
    prompt: list[int]
    ids: list[int]  # the right turn; empty where none is known
    content: list[list[int]]  # the places of the tokens of each name and value


def _row(
    tokenizer: PreTrainedTokenizerBase, case: Case, wire_format: WireFormat, ends: Sequence[int]
) -> _Row:
    prompt = prompt_of(tokenizer, case.messages, case.toolset)
    reasoning = reasoning_after(prompt, wire_format)
    guard = Guard.compile(
        wire_format, case.toolset, tokenizer, reasoning=reasoning, end_tokens=ends
    )
    turn = right_turn(case, wire_format)
    ids: list[int] = []
    content: list[list[int]] = []
    if turn is not None:
        opened = {"open": wire_format.reasoning, "reply": wire_format.answer}.get(reasoning)
        before = ""
        if opened and (case.calls or reasoning == "open"):
            gap = "\n\n" if wire_format.replies_plainly else ""
            before = fixed_text(opened.closing) + gap
        ids, content = _tokens(tokenizer, turn.after(before))
        ids.append(turn_ends(wire_format, tokenizer)[0])
    return _Row(case, guard, _ids(tokenizer, prompt)["input_ids"], ids, content)


def _tokens(
    tokenizer: PreTrainedTokenizerBase, turn: RightTurn
) -> tuple[list[int], list[list[int]]]:
    read = _ids(tokenizer, turn.text, return_offsets_mapping=True)
    spans = read["offset_mapping"]
    return read["input_ids"], [
        [at for at, (left, right) in enumerate(spans) if left < end and start < right]
        for start, end in turn.content
    ]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, **options: Any) -> Any:
    return tokenizer(text, add_special_tokens=False, **options)


def _read(rows: Sequence[_Row], logits: Sequence[torch.Tensor]) -> list[Forced]:
    """What one pass says; `logits` has a row for each token of a turn, and one behind it."""
    states = [row.guard.start(len(row.ids) + _ROOM) for row in rows]
    for state in states:
        state.steps = []
    for step in range(max(len(row.ids) for row in rows) or 1):
        going = [at for at, row in enumerate(rows) if step < max(1, len(row.ids))]
        scores = torch.stack([logits[at][step] for at in going]).float()
        tokens = [
            rows[at].ids[step] if rows[at].ids else int(own)
            for at, own in zip(going, scores.argmax(-1), strict=True)
        ]
        standing = [states[at] for at in going]
        observe(standing, scores).trace(standing, tokens, opener_odds(standing, scores))
        for state, token in zip(standing, tokens, strict=True):
            state.watch(token)
    return [
        Forced(row.case.id, *_found(row, own[:-1].float()), tuple(state.steps or ()))
        for row, own, state in zip(rows, logits, states, strict=True)
    ]


def _found(row: _Row, logits: torch.Tensor) -> tuple[tuple[bool, ...], float, float, int]:
    """Which names and values are right, the share of the structure, the likelihood, the length."""
    if not row.ids:
        return (), 0.0, 0.0, 0
    turn = torch.tensor(row.ids, device=logits.device)
    own = logits.argmax(-1) == turn
    content = {at for places in row.content for at in places}
    structure = own[[at for at in range(len(turn)) if at not in content]]
    # Content competes with content; punctuation in a value, with all but control tokens.
    controls = control_tokens(row.guard.vocabulary, logits)
    punctuation = structure_tokens(row.guard.vocabulary, logits)
    left_out = torch.where(punctuation[turn].unsqueeze(1), controls, punctuation)
    said = logits.masked_fill(left_out, float("-inf")).argmax(-1) == turn
    likelihood = logits.log_softmax(-1).gather(1, turn.unsqueeze(1)).sum()
    return (
        tuple(bool(said[places].all()) for places in row.content),
        float(structure.float().mean()),
        float(likelihood),
        len(turn),
    )
