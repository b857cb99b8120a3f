"""How a server is set up, and whether its requests can be guarded so."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from vllm.v1.metrics.loggers import StatLoggerBase

from ...decoding.guard import end_texts
from ...errors import RequestError
from .environment import MODE

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.tokenizers import TokenizerLike

    from ...formats.wire_format import WireFormat

logger = logging.getLogger("vllm.toolguard")

Mode = Literal["processor", "engine"]


@dataclass(frozen=True)
class Setup:
    """How requests are guarded.

    Attributes:
        mode: `processor`: our logits processor holds them to their grammar, and watches what the
            model wanted; `engine`: vLLM's own structured outputs do, and the processor watches.
        why: the reason.
        watches: the processor sees every token.
        in_reasoning: the grammar begins with the turn, not where its reasoning ends.
    """

    mode: Mode
    why: str
    watches: bool = True
    in_reasoning: bool = True

    @staticmethod
    def of(config: VllmConfig, wanted: str = "") -> Setup:
        """The set-up of a server.

        Args:
            wanted: a mode; by default `processor`, or `engine` where no processor can work.

        Raises:
            RequestError: requests would run without a guard; the message says what to change.
        """
        if wanted and wanted not in get_args(Mode):
            raise RequestError(f"{MODE}={wanted}: it is one of {', '.join(get_args(Mode))}")
        blind = _blindness(config)
        outputs = config.structured_outputs_config
        if not blind and wanted != "engine":
            return Setup("processor", "the logits processor sees every token")
        if wanted == "processor":
            raise RequestError(f"{MODE}=processor, but {blind}")
        if outputs.backend != "guidance":
            raise RequestError(
                f"{blind or f'{MODE}=engine'}: vLLM's structured outputs have to hold the turns to "
                "their grammar, which only its guidance backend can. Add "
                "--structured-outputs-config.backend guidance"
                + (", or change that" if blind else "")
            )
        in_reasoning = not outputs.reasoning_parser or outputs.enable_in_reasoning
        return Setup("engine", blind or f"{MODE}=engine", not blind, in_reasoning)

    def check(self, wire_format: WireFormat, tokenizer: TokenizerLike) -> None:
        """Makes sure that turns of this format can end.

        Raises:
            RequestError: they cannot.
        """
        eos = tokenizer.decode([tokenizer.eos_token_id])
        ends = end_texts(wire_format, tokenizer)
        if self.mode == "engine" and ends and eos not in ends:
            raise RequestError(
                f"vLLM's guidance backend ends a turn with {eos} only, and {wire_format.name} with "
                f"{' or '.join(ends)}: set the tokenizer's eos_token"
            )


def _blindness(config: VllmConfig) -> str:
    """Why a logits processor would not see the tokens; empty if it does."""
    if config.use_v2_model_runner:
        return ""
    if config.speculative_config is not None:
        return (
            "with speculative decoding vLLM's V1 runner leaves out logits processors without a word"
        )
    if config.scheduler_config.async_scheduling:
        return (
            "with asynchronous scheduling vLLM's V1 runner shows a logits processor no tokens (add "
            "--no-async-scheduling to have one)"
        )
    return ""


_current: list[Setup | RequestError] = []


def configure(config: VllmConfig) -> None:
    """Finds out how this server guards requests, and says so in its log."""
    try:
        setup: Setup | RequestError = Setup.of(config, os.environ.get(MODE, ""))
        logger.info("toolguard guards in mode %s: %s", setup.mode, setup.why)  # type: ignore[union-attr]
    except RequestError as error:
        # A server that does not use our tool parser may be set up as it likes.
        setup = error
    _current[:] = [setup]


def current() -> Setup:
    """How this server guards requests.

    Raises:
        RequestError: it cannot.
    """
    if not _current:
        return Setup("processor", "vLLM told nothing of its configuration")
    if isinstance(_current[0], RequestError):
        raise _current[0]
    return _current[0]


class SetupLogger(StatLoggerBase):
    """Of all of vLLM's plugins, stat loggers alone see the configuration in the API server."""

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
        configure(vllm_config)

    def record(self, *args: Any, **kwargs: Any) -> None:
        """There is nothing to record."""

    def log_engine_initialized(self) -> None:
        """Nor to say."""
