"""The logits processor, for both of vLLM's interfaces.

V1 tells it when rows are added, removed and moved; Model Runner V2 gives it slots, which are used
again, and rows that may be drafts.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsProcessor as V2LogitsProcessor,
)

from ...errors import RequestError
from ...grammar.request import PROMPT_END
from .drift import drift_of
from .environment import LOG_TEXT
from .request import NAME, GuardRequest, Resumption
from .seats import Seats

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.worker.worker_base import WorkerBase

logger = logging.getLogger("vllm.toolguard")


class GuardProcessor(V1LogitsProcessor, V2LogitsProcessor):
    """Guards the requests that ask for it, and leaves the others as they are."""

    live: GuardProcessor | None = None
    """The one of this process."""

    def __init__(self, vllm_config: VllmConfig, *args: Any) -> None:
        if GuardProcessor.live is not None and GuardProcessor.live.config is vllm_config:
            raise RequestError(
                "toolguard's logits processor is listed twice: its entry point loads it already, "
                "so drop --logits-processors"
            )
        # V2 gives its request states, V1 the device and whether memory is pinned.
        self._slots: Any = args[0] if len(args) == 1 else None
        if self._slots is not None:
            _check_access(self._slots)
        GuardProcessor.live = self
        self.config: VllmConfig = vllm_config
        tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
        self.seats = Seats(tokenizer, logger, drift_of(tokenizer), os.environ.get(LOG_TEXT) == "1")
        self._entering: dict[int, SamplingParams] = {}  # V2: whose prompt is yet to be read

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses malformed guard requests.

        Raises:
            RequestError: a ValueError, which vLLM answers with HTTP 400; it names the field.
        """
        request = GuardRequest.of(sampling_params.extra_args)
        if request is None:
            return
        Resumption.of(sampling_params.extra_args)
        for name in ("min_tokens", "allowed_token_ids", "bad_words", "structured_outputs"):
            if request.policy == "enforce" and getattr(sampling_params, name):
                raise RequestError(
                    f"{name}: it may forbid what the grammar of the tools demands; drop one of them"
                )

    def figures(self, worker: WorkerBase) -> dict[str, Any]:
        """What was done so far in this worker, as plain values."""
        if self._slots is not None:
            # V2 does not say when a request is over.
            taken = {*worker.model_runner.req_states.req_id_to_index.values()}
            for slot in [slot for slot in self.seats if slot not in taken]:
                self.seats.leave(slot)
        return self.seats.figures()

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """V1: rows were removed, added and moved, in this order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self.seats.leave(row)
        for row, params, prompt, ids in batch_update.added:
            self.seats.leave(row)
            end = len(prompt or ()) - len(Resumption.of(params.extra_args).kept)
            self._enter(row, params, (prompt or [])[max(0, end - PROMPT_END) : end], ids)
        for a, b, direction in batch_update.moved:
            self.seats.move(a, b, direction == MoveDirectionality.SWAP)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """V2: a slot has another request; whether that one is guarded."""
        self.seats.leave(req_idx)
        self._entering.pop(req_idx, None)
        if GuardRequest.of(sampling_params.extra_args) is None:
            return False
        self._entering[req_idx] = sampling_params
        return True

    def apply_staged_writes(self) -> None:
        """V2: the slots hold the prompts of the requests that came."""
        for slot, params in self._entering.items():
            kept = len(Resumption.of(params.extra_args).kept)
            end = int(self._slots.prompt_len.np[slot]) - kept
            prompt = self._slots.all_token_ids.gpu[slot, max(0, end - PROMPT_END) : end]
            self._enter(slot, params, prompt.tolist(), [])
        self._entering.clear()

    def _enter(
        self, number: int, params: SamplingParams, prompt: list[int], ids: list[int]
    ) -> None:
        request = GuardRequest.of(params.extra_args)
        if request is None:
            return
        self.seats.enter(
            number,
            (params.extra_args or {}).get(NAME, ""),
            request,
            ids,
            stops=params.all_stop_token_ids,
            prompt=prompt,
            resumption=Resumption.of(params.extra_args),
        )

    def apply(self, logits: torch.Tensor, ctx: LogitsContext | None = None) -> torch.Tensor:
        if len(self.seats):
            no_drafts: list[int] = []
            rows = [(row, row, no_drafts) for row in self.seats] if ctx is None else self._rows(ctx)
            self.seats.hold(rows, logits)
        return logits

    def _rows(self, ctx: LogitsContext) -> list[tuple[int, int, list[int]]]:
        """V2: each guarded row, its slot, and the drafts before it; the slots' tokens are read."""
        rows = []
        read = ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.pos, ctx.input_ids
        columns = torch.stack([column[: len(ctx.pos)].long() for column in read], 1)
        drafts: list[int] = []
        for row, (slot, offset, position, token) in enumerate(columns.tolist()):
            if slot not in self.seats:
                continue
            if offset:
                drafts = [*drafts, token]
            else:
                drafts = []
                self._read(slot, position, token)
            rows.append((row, slot, drafts))
        return rows

    def _read(self, slot: int, position: int, token: int) -> None:
        """V2: brings a slot's tokens up to the one that was fed at this position."""
        ids = self.seats[slot].ids
        start = int(self._slots.prompt_len.np[slot])
        written = max(0, position + 1 - start)
        if len(ids) + 1 == written:
            ids.append(token)
        elif len(ids) < written:  # it was preempted, and begins anew
            ids += self._slots.all_token_ids.gpu[slot, start + len(ids) : start + written].tolist()
        del ids[written:]


def worker_figures(worker: WorkerBase) -> str:
    """What `plugin.register` makes a method of workers: the figures of this process, as JSON.

    `null` where no processor is loaded.
    """
    live = GuardProcessor.live
    return json.dumps(None if live is None else live.figures(worker))


def _check_access(slots: Any) -> None:
    """Makes sure that the tokens of V2's slots can be read.

    Raises:
        RequestError: they cannot; a server so set up does not start.
    """
    try:
        slots.all_token_ids.gpu[:1, :1].tolist()
        slots.prompt_len.np[:1].tolist()
    except Exception as error:  # a device raises whatever it likes
        raise RequestError(
            "vLLM's V2 runner does not let toolguard read the tokens of requests on this device "
            f"({error or type(error).__name__}), and they would run unguarded: set "
            "VLLM_USE_V2_MODEL_RUNNER=0"
        ) from error
