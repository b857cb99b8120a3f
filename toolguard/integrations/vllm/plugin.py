"""What vLLM runs in each of its processes when it starts."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from ...formats.wire_format import format_names

if TYPE_CHECKING:
    from vllm.parser import Parser
    from vllm.v1.worker.worker_base import WorkerBase

PARSER = "toolguard"
FIGURES = "toolguard_stats"
"""The method of the workers that tells what their guard did."""
OLDEST, TESTED = "0.32", "0.32.0"
"""The oldest vLLM that has all that the plugin hooks into, and the newest one it was tested
with."""
_MODULE = "toolguard.integrations.vllm.tool_parser"

logger = logging.getLogger("vllm.toolguard")


@cache
def register() -> None:
    """Makes the tool parsers `toolguard`, which recognises the wire format, and `toolguard:NAME`
    known, and the reasoning parsers of the same names; and the workers able to tell their figures
    to the API server.

    Raises:
        ImportError: this vLLM is too old.
    """
    check_version()
    from vllm.parser import ParserManager
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.v1.worker.worker_base import WorkerBase

    for name in (PARSER, *(f"{PARSER}:{name}" for name in format_names(variants=True))):
        ToolParserManager.register_lazy_module(name, _MODULE, f"tools:{name}")
        ReasoningParserManager.register_lazy_module(name, _MODULE, f"reasoning:{name}")
    setattr(WorkerBase, FIGURES, _figures)
    composed = ParserManager.get_parser

    def get_parser(*args: Any, **options: Any) -> type[Parser] | None:
        from .parser import guarding

        return guarding(composed(*args, **options))

    ParserManager.get_parser = staticmethod(get_parser)


def check_version() -> None:
    """Refuses a vLLM that is too old, and says so of one that is newer than all that were tested.

    Raises:
        ImportError: it is too old; the message says what to do.
    """
    from packaging.version import Version
    from vllm import __version__

    found = Version(__version__)
    if found < Version(OLDEST):
        raise ImportError(
            f"toolguard's vLLM plugin needs vLLM {OLDEST} or newer, and this is {found}: upgrade "
            "vLLM, or uninstall toolguard from this environment"
        )
    if found.release[:2] > Version(TESTED).release[:2]:
        logger.warning("toolguard was tested with vLLM up to %s, and this is %s", TESTED, found)


def _figures(self: WorkerBase) -> str:
    from .processor import worker_figures

    return worker_figures(self)
