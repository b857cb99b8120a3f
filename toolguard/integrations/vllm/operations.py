"""The endpoint plugin `toolguard`: `/toolguard/stats`, and the engine's figures on `/metrics`.

vLLM loads it only where VLLM_PLUGINS names it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY

from .environment import REFRESH
from .metrics import EngineMetrics, server_figures
from .plugin import FIGURES
from .setup import current
from .stats import added, engine_of

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient

logger = logging.getLogger("vllm.toolguard")


class Operations:
    """Shows what the guard does.

    The engine's figures are read every few seconds, and when somebody asks for `/toolguard/stats`;
    `/metrics` shows those read last.
    """

    name = "toolguard"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._metrics = EngineMetrics()
        self._engine: EngineClient
        self._refreshing: asyncio.Task[None]  # referenced, or it may be collected

    def attach_router(self, app: FastAPI) -> None:
        """Adds the route."""
        app.get("/toolguard/stats")(self.stats)

    async def init_state(self, engine_client: EngineClient, state: State, args: Namespace) -> None:
        """Begins to read the engine's figures."""
        self._engine = engine_client
        await self._refresh()
        REGISTRY.register(self._metrics)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            logger.warning(
                "toolguard: several API servers share /metrics, which then shows turns only: the "
                "engine's figures are on /toolguard/stats"
            )
        seconds = float(os.environ.get(REFRESH, "5"))
        self._refreshing = asyncio.create_task(self._keep_refreshing(seconds))

    async def stats(self) -> dict[str, Any]:
        """What the guard did since the start, as JSON."""
        await self._refresh()
        return {
            "mode": current().mode,
            "server": server_figures(),
            "engine": self._metrics.figures,
        }

    async def _keep_refreshing(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._refresh()

    async def _refresh(self) -> None:
        # `collective_rpc` would ask all data parallel engines, and give the first one's answer.
        answers = await self._engine.engine_core.call_utility_all_async(
            "collective_rpc", FIGURES, None, (), None
        )
        engines = [engine_of([json.loads(worker) for worker in workers]) for workers in answers]
        found = [figures for figures in engines if figures is not None]
        self._metrics.figures = added(found) if found else None
