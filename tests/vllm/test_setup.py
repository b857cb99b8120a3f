"""How a server is set up: requests are guarded in one of two modes, or it is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import torch

from toolguard import Case, RequestError
from toolguard.integrations.vllm.processor import GuardProcessor
from toolguard.integrations.vllm.setup import Setup

from .serving import GUARDED, serving
from .test_server import ask, check, made, streamed

GUESSES = '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}'


def config(
    v2: bool = False,
    guesses: bool = False,
    asynchronous: bool = False,
    backend: str = "auto",
    reasoning_parser: str = "",
) -> Any:
    return SimpleNamespace(
        use_v2_model_runner=v2,
        speculative_config=object() if guesses else None,
        scheduler_config=SimpleNamespace(async_scheduling=asynchronous),
        structured_outputs_config=SimpleNamespace(
            backend=backend, reasoning_parser=reasoning_parser, enable_in_reasoning=False
        ),
    )


def test_the_processor_is_taken_where_it_sees_the_tokens() -> None:
    for each in (config(), config(v2=True), config(v2=True, guesses=True, asynchronous=True)):
        assert Setup.of(each).mode == "processor"


def test_the_engine_is_where_it_does_not() -> None:
    for blind in ({"guesses": True}, {"asynchronous": True}):
        found = Setup.of(config(backend="guidance", **blind))
        assert (found.mode, found.watches) == ("engine", False)
        with pytest.raises(RequestError, match=r"guidance"):
            Setup.of(config(**blind))
        with pytest.raises(RequestError, match=r"TOOLGUARD_MODE=processor, but"):
            Setup.of(config(backend="guidance", **blind), "processor")


def test_a_mode_can_be_asked_for() -> None:
    found = Setup.of(config(backend="guidance", reasoning_parser="qwen3"), "engine")
    assert (found.mode, found.watches, found.in_reasoning) == ("engine", True, False)
    with pytest.raises(RequestError, match=r"guidance"):
        Setup.of(config(), "engine")
    with pytest.raises(RequestError, match=r"processor, engine"):
        Setup.of(config(), "magic")


def test_a_device_that_does_not_show_its_tokens_is_refused() -> None:
    unreadable = torch.zeros(1, 1, dtype=torch.int32, device="meta")
    slots = SimpleNamespace(all_token_ids=SimpleNamespace(gpu=unreadable))
    with pytest.raises(RequestError, match=r"meta.*unguarded: set VLLM_USE_V2_MODEL_RUNNER=0"):
        GuardProcessor(config(v2=True), slots)


def test_a_server_that_guesses_is_guarded_by_its_engine(asked: list[Case], tmp_path: Path) -> None:
    log = tmp_path / "log"
    flags = (
        *GUARDED, "--speculative-config", GUESSES,
        "--structured-outputs-config.backend", "guidance",
    )  # fmt: skip
    with serving("open_then_stop", *flags, log=log, VLLM_USE_V2_MODEL_RUNNER="0") as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        for case in asked[:2]:  # each step of theirs takes a quarter of a second
            response = ask(client, case)
            assert response.choices[0].finish_reason == "tool_calls"
            check(made(response), case)
            assert streamed(ask(client, case, stream=True))[1] == made(response)
    assert "toolguard guards in mode engine: with speculative decoding" in log.read_text()


@pytest.mark.refused
@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--speculative-config", GUESSES), "leaves out logits processors"),
        (
            ("--logits-processors", "toolguard.integrations.vllm.processor:GuardProcessor"),
            "drop --logits-processors",
        ),
    ],
    ids=["guesses", "twice"],
)
def test_a_server_that_would_not_be_guarded_well_does_not_start(
    tmp_path: Path, flags: tuple[str, ...], why: str
) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(RuntimeError, match=r"did not start"),
        serving("healthy", *GUARDED, *flags, log=log, VLLM_USE_V2_MODEL_RUNNER="0"),
    ):
        pass
    assert why in log.read_text()
