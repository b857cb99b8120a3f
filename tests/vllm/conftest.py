"""Servers and engines that the tests of the vLLM plugin share; they are skipped without vLLM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM lives in an environment of its own: scripts/vllm-env")

import openai

import toolguard

from .serving import ENVIRONMENT, GUARDED, serving

os.environ.update(ENVIRONMENT)


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guarded server's log."""
    return tmp_path_factory.mktemp("guarded") / "log"


@pytest.fixture(scope="session")
def address(log: Path) -> Iterator[str]:
    """A guarded server of the checkpoint that opens a call and stops."""
    flags = (*GUARDED, "--trust-request-chat-template")
    with serving("open_then_stop", *flags, log=log) as found:
        yield found


@pytest.fixture(scope="session")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def asked() -> list[toolguard.Case]:
    """Held-out cases whose conversation is one question, each with at least one call to make."""
    return [case for case in toolguard.held_out() if len(case.messages) <= 2 and case.calls]
