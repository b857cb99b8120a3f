"""Many clients at once, on a server with little memory: nobody sees another's tokens, and nothing
is left behind."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from toolguard import Case

from ..sizes import sizes
from .serving import GUARDED, serving
from .test_server import ask, check, made


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server whose cache holds 640 tokens, and which reads prompts in chunks."""
    log = tmp_path_factory.mktemp("crowded") / "log"
    flags = (
        *GUARDED, "--block-size", "32", "--num-gpu-blocks-override", "20", "--max-model-len", "512",
        "--max-num-batched-tokens", "96", "--enable-chunked-prefill", "--enable-prefix-caching",
    )  # fmt: skip
    with serving("open_then_stop", *flags, log=log, VLLM_PLUGINS="toolguard") as address:
        yield address, log


def live(address: str) -> int:
    with urllib.request.urlopen(f"{address}/toolguard/stats", timeout=30) as answer:
        return json.load(answer)["engine"]["live"]


def count(address: str, metric: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))


@sizes(40, 64)
def test_many_clients(size: int, crowded: tuple[str, Path], asked: list[Case]) -> None:
    address, _ = crowded
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=300)
    cases = [asked[i % len(asked)] for i in range(size)]

    def one(number: int) -> list[tuple[str, str]]:
        case = cases[number]
        if number % 8 == 5:  # goes away in the middle
            with ask(client, case, stream=True) as chunks:
                next(iter(chunks), None)
            return []
        if number % 8 == 6:  # has no tools, and so no guard; the first two fill the cache
            length = 340 if number < 16 else 20
            client.chat.completions.create(
                model="model", messages=case.messages, max_tokens=length, temperature=0,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            return []
        return made(ask(client, case))

    with ThreadPoolExecutor(size) as pool:
        together = list(pool.map(one, range(size)))
    kept = [n for n in range(size) if n % 8 not in (5, 6)]
    for number in kept:
        assert together[number], number
        check(together[number], cases[number])
    for number in kept[:16]:
        assert made(ask(client, cases[number])) == together[number]
    assert count(address, "vllm:num_preemptions_total") > 0
    deadline = time.monotonic() + 30
    while live(address) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert live(address) == 0
