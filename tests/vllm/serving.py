"""A real server on this machine, for as long as it is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import toolguard

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # without it a step takes 20 to 50 times as long
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
V2 = {
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "TRITON_INTERPRET": "1",
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent / "v2"), str(Path(__file__).parents[2])]
    ),
}
"""What has vLLM's second model runner run here too. `TOOLGUARD_RUNNER=v2 pytest tests/vllm` has all
servers use it."""
if os.environ.get("TOOLGUARD_RUNNER") == "v2":
    ENVIRONMENT |= V2
GUARDED = ("--enable-auto-tool-choice", "--tool-call-parser", "toolguard")
UNGUARDED = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


@contextmanager
def serving(checkpoint: str | Path, *flags: str, log: Path, **environment: str) -> Iterator[str]:
    """The address of a server of a checkpoint, bundled or in a folder, once it answers.

    Raises:
        RuntimeError: it did not start; the message is the end of its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = toolguard.checkpoint(checkpoint) if isinstance(checkpoint, str) else checkpoint
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", "model",
        "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "64",
        "--host", "127.0.0.1", "--port", str(port), *flags,
    ]  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)


def _wait(server: subprocess.Popen[bytes], address: str, log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")
