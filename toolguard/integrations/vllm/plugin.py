"""What vLLM runs in each of its processes when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...formats.wire_format import format_names

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase

PARSER = "toolguard"
FIGURES = "toolguard_stats"
"""The method of the workers that tells what their guard did."""
_MODULE = "toolguard.integrations.vllm.tool_parser"


def register() -> None:
    """Makes the tool parsers `toolguard`, which recognises the wire format, and `toolguard:NAME`
    known, and the reasoning parsers of the same names; and the workers able to tell their figures
    to the API server."""
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.v1.worker.worker_base import WorkerBase

    for name in (PARSER, *(f"{PARSER}:{name}" for name in format_names())):
        ToolParserManager.register_lazy_module(name, _MODULE, f"tools:{name}")
        ReasoningParserManager.register_lazy_module(name, _MODULE, f"reasoning:{name}")
    setattr(WorkerBase, FIGURES, _figures)


def _figures(self: WorkerBase) -> str:
    from .processor import worker_figures

    return worker_figures(self)
