"""What vLLM runs in each of its processes when it starts."""

from __future__ import annotations

from ...formats.wire_format import format_names

PARSER = "toolguard"
_MODULE = "toolguard.integrations.vllm.tool_parser"


def register() -> None:
    """Makes the tool parsers `toolguard`, which recognises the wire format, and `toolguard:NAME`
    known, and the reasoning parsers of the same names."""
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    for name in (PARSER, *(f"{PARSER}:{name}" for name in format_names())):
        ToolParserManager.register_lazy_module(name, _MODULE, f"tools:{name}")
        ReasoningParserManager.register_lazy_module(name, _MODULE, f"reasoning:{name}")
