"""Servers and engines that the tests of the vLLM plugin share; they are skipped without vLLM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("vllm", reason="vLLM lives in an environment of its own: scripts/vllm-env")

import openai
import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM
from xdist.scheduler import LoadFileScheduling

import toolguard
from toolguard import Profile, WireFormat
from toolguard.integrations.vllm.environment import LOG_TEXT, PROFILE, REFRESH

from .engine import engine
from .serving import ENVIRONMENT, GUARDED, serving

if TYPE_CHECKING:
    from vllm import LLM

os.environ.update(ENVIRONMENT)

SHARED = {
    "guarded": ("hostile", "operations", "server"),
    "engine": ("engines", "offline"),
}
"""Files that ask one server, or one engine in their process: these take longer to start than to
answer."""


class Together(LoadFileScheduling):
    """Files to workers, those that share something to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        kind = Path(file).stem.removeprefix("test_")
        return next((name for name, kinds in SHARED.items() if kind in kinds), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the healthy checkpoint: as many turns as an alarm takes, no more."""
    torch.set_num_threads(1)
    path = toolguard.checkpoint("healthy")
    model = Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    recorded = Profile.of(WireFormat.load("hermes"), tokenizer)
    cases = toolguard.held_out()[:192]
    for turn in toolguard.answer(model, tokenizer, cases, policy="observe", trace=True):
        recorded.add(turn.report.steps)
    out = tmp_path_factory.mktemp("profile") / "healthy.json"
    recorded.save(out)
    return out


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guarded server's log."""
    return tmp_path_factory.mktemp("guarded") / "log"


@pytest.fixture(scope="session")
def address(profile: Path, log: Path) -> Iterator[str]:
    """A guarded server of the checkpoint that opens a call and stops, with all that it can show."""
    flags = (*GUARDED, "--trust-request-chat-template")
    environment = {"VLLM_PLUGINS": "toolguard", PROFILE: str(profile), LOG_TEXT: "1", REFRESH: "1"}
    with serving("open_then_stop", *flags, log=log, **environment) as found:
        yield found


@pytest.fixture(scope="session")
def llm() -> Iterator[LLM]:
    """An engine in this process."""
    torch.set_num_threads(1)  # with two, a step takes 20 to 50 times as long
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield engine()


@pytest.fixture(scope="session")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def asked() -> list[toolguard.Case]:
    """Held-out cases whose conversation is one question, each with at least one call to make."""
    return [case for case in toolguard.held_out() if len(case.messages) <= 2 and case.calls]
