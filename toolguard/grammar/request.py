"""The grammar of one request: a wire format with the tools offered, as the request limits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as Choice

from ..errors import RequestError, ToolsetError
from ..formats.nodes import (
    NEVER,
    Alt,
    Literal,
    Node,
    Ref,
    Rules,
    Slot,
    children,
    reachable,
    rebuild,
    walk,
)
from ..formats.wire_format import WireFormat
from ..tools.toolset import Toolset
from .arguments import Relaxation, argument_rules

Reasoning = Choice["auto", "open", "none"]
_CHOICES = ("auto", "required", "none")
_STARTS = {"auto": "start", "open": "opened", "none": "turn"}


@dataclass(frozen=True)
class RequestGrammar:
    """The rules of one whole turn, from `start`.

    Attributes:
        rules: all rules that `start` needs; no slot is left in them.
        start: the rule of the whole turn.
        relaxations: what the tools' schemas say that the rules do not.
    """

    rules: Rules
    start: str
    relaxations: tuple[Relaxation, ...]


def request_grammar(
    wire_format: WireFormat,
    toolset: Toolset,
    tool_choice: str = "auto",
    parallel: bool = True,
    reasoning: Reasoning = "auto",
) -> RequestGrammar:
    """The grammar of a turn.

    Args:
        tool_choice: `auto`, `required`, `none`, or the name of the one tool to call.
        parallel: whether one turn may hold several calls.
        reasoning: `auto` if the turn may open with reasoning, `open` if the prompt has opened it
            already, `none` if there is none.

    Raises:
        RequestError: the choice names no tool, or demands a call where no tools are offered.
        ToolsetError: a tool's schema can be satisfied by no arguments.
    """
    if reasoning not in _STARTS:
        raise RequestError(f"reasoning {reasoning!r}: use {', '.join(_STARTS)}")
    rules = dict(wire_format.rules)
    if tool_choice not in _CHOICES and tool_choice in toolset.names:
        toolset = toolset.only(tool_choice)
        tool_choice = "required"
    if tool_choice not in _CHOICES:
        raise RequestError(
            f"tool_choice {tool_choice!r}: use auto, required, none or one of "
            f"{', '.join(toolset.names) or '(no tools are offered)'}"
        )
    if tool_choice == "required":
        if not len(toolset):
            raise RequestError("tool_choice demands a call, but no tools are offered")
        rules["reply"] = NEVER
    relaxations: list[Relaxation] = []
    if tool_choice == "none" or not len(toolset):
        rules["calls"] = NEVER
    else:
        relaxations = _offer(rules, toolset)
    if not parallel:
        rules["further"] = NEVER
    start = _STARTS[reasoning]
    return RequestGrammar(reachable(rules, start), start, tuple(relaxations))


def _offer(rules: dict[str, Node], toolset: Toolset) -> list[Relaxation]:
    """Puts a copy of the call's rules for each tool in place of the general ones."""
    general = [name for name in _below("call", rules) if _has_slot(name, rules)]
    relaxations: list[Relaxation] = []
    copies: dict[str, Node] = {}
    for index, tool in enumerate(toolset):
        arguments = f"schema_{index}"
        made, relaxed = argument_rules(tool, arguments)
        if reachable(made, arguments)[arguments] == NEVER:
            raise ToolsetError(f"tool {tool.name!r}: no arguments can satisfy its schema")
        copies |= made
        relaxations += relaxed
        slots: dict[str, Node] = {"NAME": Literal(tool.name), "ARGUMENTS": Ref(arguments)}
        for name in general:
            copies[f"{name}_{index}"] = _fill(rules[name], slots, general, index)
    rules |= copies
    rules["call"] = Alt(tuple(Ref(f"call_{index}") for index in range(len(toolset))))
    return relaxations


def _fill(node: Node, slots: dict[str, Node], general: list[str], index: int) -> Node:
    match node:
        case Slot(name):
            return slots[name]
        case Ref(rule) if rule in general:
            return Ref(f"{rule}_{index}")
        case _:
            return rebuild(
                node, tuple(_fill(child, slots, general, index) for child in children(node))
            )


def _below(name: str, rules: Rules) -> list[str]:
    found = [name]
    for rule in found:
        found += [
            node.rule
            for node in walk(rules[rule])
            if isinstance(node, Ref) and node.rule not in found
        ]
    return list(dict.fromkeys(found))


def _has_slot(name: str, rules: Rules) -> bool:
    return any(isinstance(node, Slot) for rule in _below(name, rules) for node in walk(rules[rule]))
