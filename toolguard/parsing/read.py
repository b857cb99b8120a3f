"""Reads a finished turn through its format's parser, and classifies what it finds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lark import Token, Tree, UnexpectedInput, UnexpectedToken

from ..formats.reader import CALLS, MARKED, SPACE, control_pattern, marker, unmark
from ..formats.wire_format import WireFormat
from ..tools.toolset import Toolset
from .turn import Call, Fault, FaultKind, State, Turn
from .values import read_arguments


def read_turn(
    text: str,
    wire_format: WireFormat,
    toolset: Toolset,
    *,
    opened: bool = False,
    ended: bool = True,
) -> Turn:
    """What an assistant turn says, and what is wrong with it.

    Args:
        text: the turn without its end token. Control tokens are spelled out, or marked (see
            `toolguard.formats.reader`).
        opened: the prompt had opened the reasoning already.
        ended: the turn was ended by an end token, not by a budget.
    """
    walk = _Walk(text, wire_format, opened)
    calls: list[Call] = []
    faults: list[Fault] = []
    for found in walk.calls():
        outcome = _checked(found, walk, toolset)
        if isinstance(outcome, Call):
            calls.append(outcome)
        else:
            faults += outcome
    faults += [
        Fault("stray_control", span, f"{control!r} inside a call")
        for span, control in walk.hidden_controls()
    ]
    if walk.position is not None:
        faults.append(walk.fault(*_diagnose(walk, wire_format)))
    elif not (calls or faults or walk.text.strip(SPACE)):
        faults.append(walk.fault("empty_turn", 0, "nothing but white space"))
    if not ended:
        end = walk.span(len(text), len(text))
        faults.append(Fault("unfinished_turn", end, "the budget ran out before the turn's end"))
    if not (calls or faults) and _is_untagged(walk.text, wire_format, toolset):
        faults.append(walk.fault("untagged_call", 0, "a call without its control tokens"))
    return Turn(
        raw=unmark(text, wire_format.controls),
        text=walk.text.strip(SPACE),
        reasoning=walk.reasoning.strip(SPACE),
        calls=tuple(calls),
        calling=bool(calls)
        or _last(text, wire_format.opener, wire_format) is not None
        or any(fault.kind in _OF_CALLS for fault in faults),
        state=_state(walk, calls, faults),
        faults=tuple(faults),
    )


_REASONING = {"reasoning", "thoughts"}
_OF_CALLS = {"untagged_call", "malformed_call", "unknown_tool", "bad_arguments"}


@dataclass(frozen=True, slots=True)
class _Found:
    """A call as it stands in the text."""

    name: str
    tree: Tree[Token]
    start: int
    end: int


class _Walk:
    """One pass of the parser over a turn, kept as far as it went."""

    def __init__(self, text: str, wire_format: WireFormat, opened: bool) -> None:
        self.source = text
        self.format = wire_format
        self.control = re.compile(control_pattern(wire_format.controls))
        parser = wire_format.reader.lark.parse_interactive(
            text, start="opened" if opened else "start"
        )
        self.position: int | None = None
        self.tokens: list[Token] = []
        try:
            for token in parser.iter_parse():
                self.tokens.append(token)
            self.roots: Sequence[Tree[Token] | Token] = [parser.feed_eof()]  # type: ignore[no-untyped-call]
        except UnexpectedInput as error:
            at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
            self.position = len(text) if at_end else error.pos_in_stream
            self.roots = parser.parser_state.value_stack
        prose = {"reasoning": "", "text": ""}
        for token, inside in _tokens(self.roots, "text"):
            if token.type == "FREE":
                prose[inside] += token
        self.text, self.reasoning = prose["text"], prose["reasoning"]

    def calls(self) -> Iterator[_Found]:
        """The complete calls, in order."""
        trees = [tree for root in self.roots if isinstance(root, Tree) for tree in _calls(root)]
        for tree in trees:
            name = str(next(tree.find_data("name_")).children[0])
            yield _Found(name, tree, tree.meta.start_pos, tree.meta.end_pos)

    def hidden_controls(self) -> Iterator[tuple[tuple[int, int], str]]:
        """Control tokens, sampled as such, inside other terminals."""
        for token in self.tokens:
            if _hides_control(token):
                for found in MARKED.finditer(token):
                    start = (token.start_pos or 0) + found.start()
                    yield self.span(start, start + 1), unmark(found[0], self.format.controls)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span of the source as a span of the unmarked text."""
        controls = self.format.controls
        return len(unmark(self.source[:start], controls)), len(unmark(self.source[:end], controls))

    def fault(self, kind: FaultKind, start: int, message: str) -> Fault:
        return Fault(kind, self.span(start, len(self.source)), message)


def _hides_control(node: Token | Tree[Token]) -> bool:
    """Whether a control token, sampled as such, stands inside another terminal."""
    if isinstance(node, Tree):
        return False
    return not node.type.startswith("CONTROL") and MARKED.search(node) is not None


def _tokens(nodes: Sequence[Tree[Token] | Token], inside: str) -> Iterator[tuple[Token, str]]:
    for node in nodes:
        if isinstance(node, Token):
            yield node, inside
        else:
            yield from _tokens(node.children, "reasoning" if node.data in _REASONING else inside)


def _calls(tree: Tree[Token]) -> Iterator[Tree[Token]]:
    if tree.data in CALLS:
        yield tree
    elif tree.data not in _REASONING:
        for child in tree.children:
            if isinstance(child, Tree):
                yield from _calls(child)


def _checked(found: _Found, walk: _Walk, toolset: Toolset) -> Call | list[Fault]:
    span = walk.span(found.start, found.end)
    if found.name not in toolset.names:
        offered = ", ".join(toolset.names) or "none"
        return [Fault("unknown_tool", span, f"no tool {found.name!r} is offered ({offered})")]
    if any(found.tree.scan_values(_hides_control)):
        return []  # a control token inside a string: `hidden_controls` tells
    try:
        arguments = read_arguments(found.tree, walk.source, walk.format.reader, toolset[found.name])
    except ValueError as error:
        return [Fault("malformed_call", span, f"the arguments cannot be read: {error}")]
    errors = toolset.errors(found.name, arguments)
    if errors:
        return [Fault("bad_arguments", span, error) for error in errors]
    return Call(found.name, arguments, span)


def _diagnose(walk: _Walk, wire_format: WireFormat) -> tuple[FaultKind, int, str]:
    """What the parser stumbled over: kind, start, message."""
    source, position = walk.source, walk.position
    assert position is not None
    opener = _last(source[:position], wire_format.opener, wire_format)
    closer = _last(source[:position], wire_format.closer, wire_format)
    inside = opener is not None and (closer is None or closer.start() < opener.start())
    at_end = position == len(source)
    if inside and opener is not None:
        if at_end and not source[opener.end() :].strip(SPACE):
            return "open_then_stop", opener.start(), f"{wire_format.opener}, then the turn ends"
        if at_end:
            return "missing_close", opener.start(), "the turn ends inside a call"
    if at_end:
        if source.strip(SPACE) and not any(token.type == "FREE" for token in walk.tokens[-1:]):
            return "empty_turn", 0, "reasoning and nothing after it"
        kind: FaultKind = "unclosed_reasoning" if source.strip(SPACE) else "empty_turn"
        return kind, 0, "the reasoning is never closed" if source.strip(SPACE) else "nothing at all"
    control = walk.control.match(source, position)
    if control:
        spelled = unmark(control[0], wire_format.controls)
        where = "inside a call" if inside else "where it has no business"
        return "stray_control", position, f"{spelled} {where}"
    if inside:
        near = unmark(source[position : position + 20], wire_format.controls)
        return "malformed_call", position, f"the call breaks off at {near!r}"
    if closer is not None:
        return "text_after_call", position, "text after the calls"
    return "blank_run", position, "the turn opens with a run of white space"


def _last(text: str, control: str, wire_format: WireFormat) -> re.Match[str] | None:
    """The last occurrence of a control token, marked or spelled."""
    mark = re.escape(marker(wire_format.controls.index(control))) if control else ""
    found = list(re.finditer(f"{mark}|{re.escape(control)}", text)) if control else []
    return found[-1] if found else None


def _is_untagged(text: str, wire_format: WireFormat, toolset: Toolset) -> bool:
    """Whether prose is the bare body of a call to an offered tool."""
    if not wire_format.opener:
        return False
    tagged = f"{wire_format.opener}{text.strip(SPACE)}{wire_format.closer}"
    walk = _Walk(tagged, wire_format, opened=False)
    return walk.position is None and any(call.name in toolset.names for call in walk.calls())


def _state(walk: _Walk, calls: Sequence[Call], faults: Sequence[Fault]) -> State:
    if not faults:
        return "healthy_call" if calls else "healthy_response"
    if not calls and not re.search(r"\w", walk.control.sub("", walk.source)):
        return "collapsed"
    return "polluted"
