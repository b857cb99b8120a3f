"""One turn as its client sees it, whatever requests to the engine it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm.logprobs import FlatLogprobs, Logprob, SampleLogprobs
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.metrics.stats import RequestStateStats

if TYPE_CHECKING:
    from vllm.tokenizers import TokenizerLike

Position = dict[int, Logprob] | None


class Stitch:
    """Puts the outputs of several requests together to those of one.

    The turn's text is a function of its tokens: those that are settled go through one of vLLM's own
    detokenizers, which looks for stop strings, too. So the engine's text is not needed, and neither
    text nor stop strings know of a seam.

    Args:
        prompt: the ids of the client's prompt.
        params: what the client asked for.
    """

    def __init__(
        self, tokenizer: TokenizerLike, prompt: list[int], params: SamplingParams, request_id: str
    ) -> None:
        self._params, self._request_id, self._prompt = params, request_id, prompt
        self._ids: list[int] = []
        self._positions: list[Position] = []
        self._told = 0  # how many of the tokens the client was told
        self._sum = 0.0  # of their log-probabilities
        self._text = ""
        self._first: RequestOutput | None = None
        self._detokenizer = IncrementalDetokenizer.from_new_request(
            tokenizer if params.detokenize else None,
            EngineCoreRequest(request_id, prompt, None, params, None, 0.0, None, None, None),
        )

    def add(self, output: RequestOutput) -> list[int]:
        """Takes in what the engine wrote; returns its tokens."""
        self._first = self._first or output
        (piece,) = output.outputs
        self._ids += piece.token_ids
        self._positions += piece.logprobs or [None] * len(piece.token_ids)
        return [*piece.token_ids]

    def resume(self, kept: Sequence[int]) -> None:
        """The turn was taken back to these tokens; the last of them may be new ones."""
        same = next(
            (i for i, (a, b) in enumerate(zip(self._ids, kept, strict=False)) if a != b),
            min(len(self._ids), len(kept)),
        )
        self._ids = [*kept]
        # Of a token that the guard wrote the engine says no probability.
        self._positions = [*self._positions[:same], *[None] * (len(kept) - same)]

    def tell(self, settled: int, output: RequestOutput) -> RequestOutput | None:
        """What more the client can be told after this output, if anything.

        Args:
            settled: how many of the turn's tokens stay, whatever comes.
        """
        (piece,) = output.outputs
        finish, stop = piece.finish_reason, piece.stop_reason
        told = self._told
        news = self._ids[told : len(self._ids) if finish else settled]
        found = self._detokenizer.update(news, finish == "stop")
        if found:
            finish, stop = "stop", found
            del news[self._detokenizer.num_output_tokens() - told :]
        positions = self._positions[told : told + len(news)]
        self._told += len(news)
        self._sum += sum(p[i].logprob for i, p in zip(news, positions, strict=True) if p)
        text = self._detokenizer.get_next_output_text(finish is not None, delta=True)
        self._text += text
        kind = self._params.output_kind
        if not finish and (kind == RequestOutputKind.FINAL_ONLY or not news):
            return None
        if kind != RequestOutputKind.DELTA:
            text, news = self._text, self._ids[: self._told]
            positions = self._positions[: self._told]
        told_before = told and kind == RequestOutputKind.DELTA
        assert self._first is not None
        return RequestOutput(
            request_id=self._request_id,
            prompt=self._first.prompt,
            prompt_token_ids=self._prompt,
            prompt_logprobs=None if told_before else self._first.prompt_logprobs,
            outputs=[
                CompletionOutput(
                    index=0,
                    text=text,
                    token_ids=news,
                    cumulative_logprob=None if self._params.num_logprobs is None else self._sum,
                    logprobs=self._logprobs(positions),
                    finish_reason=finish,
                    stop_reason=stop,
                    lora_request=piece.lora_request,
                    spec_decode_metrics=piece.spec_decode_metrics,
                )
            ],
            finished=finish is not None,
            metrics=self._metrics(output),
            lora_request=output.lora_request,
            num_cached_tokens=self._first.num_cached_tokens,
            num_cache_creation_tokens=self._first.num_cache_creation_tokens,
        )

    def _logprobs(self, positions: list[Position]) -> SampleLogprobs | None:
        if self._params.num_logprobs is None:
            return None
        if not self._params.flat_logprobs:
            return positions
        flat = FlatLogprobs()
        flat.extend(positions)
        return flat

    def _metrics(self, output: RequestOutput) -> RequestStateStats | None:
        """Of the turn: it began with the first request, and ends with the last."""
        assert self._first is not None
        began = self._first.metrics
        if began is None or output.metrics is None:
            return None
        return replace(
            began, num_generation_tokens=self._told, last_token_ts=output.metrics.last_token_ts
        )
