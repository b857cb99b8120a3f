"""`toolguard.repair`: a turn in, the turn with its provable calls out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from ..errors import FormatError
from ..formats.reader import SPACE
from ..formats.render import render
from ..formats.wire_format import WireFormat, format_names
from ..parsing.read import read_turn
from ..parsing.turn import Call, Turn
from ..tools.toolset import ToolLike, Toolset
from .changes import HEAD, Changes
from .edits import Confidence, Edit, Repair
from .evidence import invented
from .search import Change, Way, begin, solutions

Tools: TypeAlias = Toolset | Sequence[ToolLike]

_AROUND = ("drop_head", "unfence", "add_opener", "reroute")
"""Edits that leave the words of a call as they are; so do those that cut or close it."""
_BODIES = 8  # how many places are tried as the beginning of a call without its opener
_FENCED = re.compile(r"```[a-z_]*[ \t]*\n(.*?)\n?[ \t]{0,16}```", re.DOTALL)


def repair(text: str, tools: Tools, format: WireFormat | str = "auto") -> Repair:
    """Gives back the calls of a finished turn that can be proved, and only those.

    A turn that its format's parser reads without a fault comes back byte for byte, unless all of it
    is a call in another format. Else the fewest edits are looked for with which the parser follows
    it to the end, and every name, key and value is one of the turn's own. Where that can be done in
    two ways that differ in what they call, or in none, the turn stays as it is. Prose with a call
    in it is no call.

    Args:
        text: the turn, control tokens spelled out, without its end token.
        tools: the tools that were offered (see `Toolset.of`).
        format: the model's wire format, or its name; `auto` takes the one that reads the turn best.

    Raises:
        FormatError: there is no such format.
        ToolsetError: the tools are malformed.
    """
    toolset = Toolset.of(tools)
    wire_format = format if isinstance(format, WireFormat) else _named(format, text, toolset)
    turn = read_turn(text, wire_format, toolset)
    headed = bool(HEAD.match(text))
    if turn.calls and not turn.faults and not headed:
        return Repair(wire_format.name, turn, turn, "exact")
    if not any(name in text for name in toolset.names):
        return _unchanged(wire_format, turn)
    for way in (_mended, _rerouted):
        found = way(text, wire_format, toolset)
        if len(found) > 1:
            return Repair(
                wire_format.name,
                turn,
                turn,
                "ambiguous",
                candidates=tuple(after.calls for after, _ in found),
                reason=f"{len(found)} repairs are as small as each other, and call differently",
            )
        for after, edits in found:
            around = all(
                edit.rule in _AROUND
                or edit.rule.startswith("cut")
                or edit.after in wire_format.controls
                for edit in edits
            )
            confidence: Confidence = "exact" if around else "minimal"
            after = replace(after, ids=turn.ids)
            return Repair(wire_format.name, turn, after, confidence, edits)
    return _unchanged(wire_format, turn)


def _unchanged(wire_format: WireFormat, turn: Turn) -> Repair:
    if not turn.faults:
        return Repair(wire_format.name, turn, turn, "exact")
    reason = f"{turn.faults[0].message}; no call in it can be proved"
    return Repair(wire_format.name, turn, turn, "refused", reason=reason)


def _named(name: str, text: str, toolset: Toolset) -> WireFormat:
    if name != "auto":
        return WireFormat.load(name)
    formats = [WireFormat.load(each) for each in format_names()]
    for each in formats:
        if any(control in text for control in each.controls):
            turn = read_turn(text, each, toolset)
            if turn.calls and not turn.faults:
                return each
    opened = [each for each in formats if each.opener and each.opener in text]
    hermes = WireFormat.load("hermes")
    return hermes if hermes in opened or not opened else opened[0]


def _mended(
    text: str, wire_format: WireFormat, toolset: Toolset
) -> list[tuple[Turn, tuple[Edit, ...]]]:
    """The smallest repairs in the format itself, one for each outcome."""
    read: dict[str, Turn] = {}

    def sound(way: Way) -> bool:
        turn = read_turn(way.text, wire_format, toolset)
        read[way.text] = turn
        if turn.faults or not turn.calls or _is_quoted(way, text, turn):
            return False
        return all(invented(call, text) is None for call in turn.calls)

    found = solutions(
        wire_format,
        list(_starts(text, wire_format, toolset)),
        Changes(wire_format, toolset),
        sound,
    )
    different: dict[str, tuple[Turn, tuple[Edit, ...]]] = {}
    for way in found:
        turn = read[way.text]
        different.setdefault(_said(turn.calls), (turn, way.edits))
    return list(different.values())


def _is_quoted(way: Way, text: str, turn: Turn) -> bool:
    """Whether what was mended may be an example, or may have been cut off."""
    rules = {edit.rule for edit in way.edits}
    if turn.text and "cut_text" in rules and len(rules) > 1:
        return True  # a damaged call in the middle of prose
    said = text.rstrip(SPACE)
    closed = any(edit.span[0] >= len(said) and edit.after for edit in way.edits)
    return closed and said[-1] not in "}])>"


def _starts(text: str, wire_format: WireFormat, toolset: Toolset) -> Iterator[Way]:
    """The turn, without another speaker's header at its head, and with an opener where the body of
    a call may begin."""
    way = begin(wire_format, text)
    head = HEAD.match(text)
    if head:
        way = way.changed(Change(0, head.end(), "", "drop_head"), 0, way.state)
    yield way
    opener, closer = wire_format.opener, wire_format.closer
    if not opener:
        return
    closed = closer and closer in way.text
    if way.text.lstrip(SPACE).startswith(opener):
        return
    for at in _bodies(way.text, toolset.names):
        before = way.text[:at].strip(SPACE)
        if before and not closed:
            return  # an example in prose, for all we know
        yield way.changed(Change(at, at, opener, "add_opener"), 0, way.state)


def _bodies(text: str, names: Sequence[str]) -> list[int]:
    """Where a line begins as the body of a call may."""
    named = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    lines = re.compile(rf"^[ \t]*(?=[\[{{<\w\"][^\n]{{0,80}}?(?:{named})|\{{[ \t]*$)", re.MULTILINE)
    return [found.end() for _, found in zip(range(_BODIES), lines.finditer(text), strict=False)]


def _rerouted(
    text: str, wire_format: WireFormat, toolset: Toolset
) -> list[tuple[Turn, tuple[Edit, ...]]]:
    """All of the turn as calls in other formats, re-emitted in this one."""
    head = HEAD.match(text)
    body = text[head.end() if head else 0 :].strip(SPACE)
    fenced = _FENCED.fullmatch(body)
    bodies = [fenced[1].strip(SPACE)] if fenced else [body]
    opener, closer = wire_format.opener, wire_format.closer
    if opener and closer and body.startswith(opener) and body.endswith(closer):
        bodies.append(body[len(opener) : -len(closer)].strip(SPACE))
    different: dict[str, tuple[Turn, tuple[Edit, ...]]] = {}
    for each in bodies:
        for calls in _foreign(each, wire_format, toolset):
            try:
                native = render(
                    wire_format,
                    [{"name": call.name, "arguments": call.arguments} for call in calls],
                )
            except FormatError:
                continue
            turn = read_turn(native, wire_format, toolset)
            if _said(turn.calls) == _said(calls) and not turn.faults:
                edit = Edit((0, len(text)), text, native, "reroute")
                different.setdefault(_said(calls), (turn, (edit,)))
    return list(different.values())


def _foreign(body: str, wire_format: WireFormat, toolset: Toolset) -> Iterator[tuple[Call, ...]]:
    """The calls that other formats read in a whole turn, with or without their tags."""
    if not re.match(r"[\[{<`]|\w+\(", body) and "<" not in body[:40] and "[" not in body[:20]:
        return
    for name in format_names():
        other = WireFormat.load(name)
        texts = [body]
        if other.opener and not body.startswith(other.opener):
            texts.append(f"{other.opener}{body}{other.closer}")
        for each in texts:
            turn = read_turn(each, other, toolset)
            calls = turn.calls
            alone = calls and not (turn.faults or turn.text or turn.reasoning)
            if alone and all(invented(call, body) is None for call in calls):
                yield calls


def _said(calls: Sequence[Call]) -> str:
    return repr([(call.name, call.arguments) for call in calls])
