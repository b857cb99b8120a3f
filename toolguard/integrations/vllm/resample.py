"""Re-sampling in vLLM's API server: a turn that goes wrong is taken back, and tried again.

What a logits processor lets through is written for good. Here a request can be aborted, and its
prompt submitted once more with the sound part of the turn; the prefix cache has most of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from prometheus_client import Counter
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from ...errors import RequestError, ToolguardError
from ...grammar.request import PROMPT_END
from .judge import Judge
from .request import NAME, GuardRequest, Resumption
from .stitch import Stitch

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("vllm.toolguard")

RETRIES = Counter("toolguard_retries", "How often a turn was taken back", ["action"])
RETRIED = Counter("toolguard_retried_tokens", "Tokens that were taken back", ["action"])

Outputs = AsyncGenerator[RequestOutput, None]


class Resampling:
    """The endpoint plugin `toolguard_resample`. It adds no route: it stands before the engine."""

    name = "toolguard_resample"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """There is no route."""

    async def init_state(self, engine_client: AsyncLLM, state: Any, args: Namespace) -> None:
        engine_client.generate = Resampler(engine_client).generate
        logger.info("toolguard takes back and re-samples turns that go wrong")


class Resampler:
    """Generates in an engine's stead: guarded turns with retries, all others as they are."""

    def __init__(self, engine: AsyncLLM) -> None:
        self._engine = engine
        self._generate = engine.generate

    def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **options: Any
    ) -> Outputs:
        """As the engine's own."""
        request = _guarded(prompt, sampling_params)
        if request is None:
            return self._generate(prompt, sampling_params, request_id, **options)
        return self._resampled(request, prompt, sampling_params, request_id, options)

    async def _resampled(
        self,
        request: GuardRequest,
        prompt: Any,
        params: SamplingParams,
        request_id: str,
        options: dict[str, Any],
    ) -> Outputs:
        ids = prompt["prompt_token_ids"]
        try:
            judge = await asyncio.to_thread(self._judge, request, params, ids)
        except ToolguardError:  # a request made by hand; the processor says that it is not guarded
            async with aclosing(self._generate(prompt, params, request_id, **options)) as inner:
                async for output in inner:
                    yield output
            return
        stitch = Stitch(self._engine.renderer.tokenizer, ids, params, request_id)
        again: Resumption | None = Resumption()
        while again is not None:
            inner = self._generate(
                tokens_input(
                    [*ids, *again.kept],
                    prompt=prompt.get("prompt"),
                    cache_salt=prompt.get("cache_salt"),
                ),
                _params(params, again),
                f"{request_id}-retry{judge.retries}" if judge.retries else request_id,
                **options,
            )
            again = None
            async with aclosing(inner):  # which aborts what has not finished
                async for output in inner:
                    again = _first_fault(judge, stitch.add(output))
                    if again is not None:
                        stitch.resume(again.kept)
                        _note(params, judge)
                        break
                    told = stitch.tell(judge.settled, output)
                    if told is not None:
                        yield told
                        if told.finished:
                            break

    def _judge(self, request: GuardRequest, params: SamplingParams, prompt: list[int]) -> Judge:
        engine = self._engine
        params = params.clone()
        # The engine does the same before it passes them on: it adds the ids that end a turn.
        params.update_from_generation_config(
            engine.input_processor.generation_config_fields, engine.renderer.get_eos_token_id()
        )
        guard = request.guard(
            engine.renderer.tokenizer, params.all_stop_token_ids, prompt[-PROMPT_END:]
        )
        assert params.max_tokens is not None
        return Judge(guard.start(params.max_tokens))


def _guarded(prompt: Any, params: SamplingParams) -> GuardRequest | None:
    """How a request is guarded; None: there is nothing that could be tried again."""
    if not (isinstance(prompt, dict) and prompt.get("type") == "token"):
        return None
    if params.n > 1 or params.max_tokens is None:
        return None
    try:
        request = GuardRequest.of(params.extra_args)
    except RequestError:
        return None  # the engine refuses it, and says why
    return request if request is not None and request.policy == "enforce" else None


def _params(params: SamplingParams, again: Resumption) -> SamplingParams:
    """What the engine is asked for: every token at once, of a turn that is taken up here."""
    assert params.max_tokens is not None
    asked = params.clone()
    asked.output_kind = RequestOutputKind.DELTA
    asked.max_tokens = params.max_tokens - len(again.kept)
    asked.stop = []  # they are looked for in what is settled
    if again.kept or again.banned:
        asked.prompt_logprobs = None  # said already
        asked.extra_args = {**(params.extra_args or {}), **again.to_extra()}
    return asked


def _first_fault(judge: Judge, tokens: list[int]) -> Resumption | None:
    found = (judge.take(token) for token in tokens)
    return next((again for again in found if again is not None), None)


def _note(params: SamplingParams, judge: Judge) -> None:
    """Counts what was just taken back, and says so, without what the user or the model said."""
    done = judge.state.interventions[-1]
    RETRIES.labels(done.action).inc()
    RETRIED.labels(done.action).inc(judge.last)
    line = {
        "request": (params.extra_args or {}).get(NAME, ""),
        "step": done.step,
        "tokens": judge.last,
        "action": done.action,
        "reason": done.reason,
    }
    logger.info("toolguard took back: %s", json.dumps(line))
