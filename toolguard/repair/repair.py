"""`toolguard.repair`: a turn in, the turn with its provable calls out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING

from ..errors import FormatError
from ..formats.reader import SPACE, fixed_text
from ..formats.render import render
from ..formats.wire_format import WireFormat, guesses
from ..parsing.literals import checked, read_literal
from ..parsing.opening import Known, Opened, opened_by, shown
from ..parsing.parser import TurnParser
from ..parsing.read import read_turn
from ..parsing.turn import Call, Turn
from ..tools.toolset import Toolset
from .changes import HEAD, IN_PYTHON, Changes
from .classify import Tools, read_as
from .decoded import decoded
from .edits import Confidence, Edit, Repair
from .evidence import accounted, holds_tags, invented, spans_structure
from .rivals import has_rival
from .search import Change, Way, begin, follows, solutions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AROUND = ("drop_head", "drop_reasoning", "add_opener", "reroute")
"""Edits that leave the words of a call as they are; so do those that cut or close it."""
_LONGEST_UNTAGGED = 20_000  # characters
_BODIES = 8  # how many places are tried as the beginning of a call without its opener
_STRUCTURE = re.compile(r"[{}<>\[(\"]")
_IN_NUMBER = re.compile(r"\d[\w.]")
_THOUGHT = re.compile(r"\s*<think>(?:(?!</?think>)[\s\S])*</think>[\r\n]*")
_FENCED = re.compile(r"```[a-z_]*[ \t]*\n(.*?)\n?[ \t]{0,16}```", re.DOTALL)

_LISTED = re.compile(r"\{\s*\"tool_calls\"\s*:\s*(\[.*\])\s*\}", re.DOTALL)
_WRAPPED = re.compile(r"<(?:function_call|function_calls|tool_calls)>(.*)</\w+>", re.DOTALL)
"""What models put around JSON that no format asks for."""


def repair(
    turn: str | Sequence[int],
    tools: Tools,
    format: WireFormat | str = "auto",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    opened: Opened = "auto",
    prompt: str | None = None,
    ended: bool = True,
) -> Repair:
    """Gives back the calls of a finished turn that can be proved, and only those.

    A turn that its format's parser reads without a fault comes back byte for byte, unless all of it
    is a call in another format. Else the fewest edits are looked for with which the parser follows
    it to the end, and every name, key and value is one of the turn's own. Where that can be done in
    two ways that differ in what they call, or in none, the turn stays as it is. Prose with a call
    in it is no call, and neither is one that was only thought of.

    Args:
        turn: its text, control tokens spelled out, without its end token; or its ids.
        tools: the tools that were offered (see `Toolset.of`).
        format: the model's wire format, or its name; `auto` takes the one that the tokenizer says,
            or that reads the turn best.
        tokenizer: the model's, for ids.
        opened: what the prompt had opened already (see `toolguard.read_turn`).
        prompt: the prompt, or its end, which says so.
        ended: the turn was ended by an end token, not by a budget.

    Raises:
        FormatError: there is no such format.
        ToolsetError: the tools are malformed.
        RequestError: ids without a tokenizer, or tools that the mask engine refuses; or no prompt
            opens that in the format.
        TokenizerError: the tokenizer is not a fast one and cannot be converted.
    """
    toolset = Toolset.of(tools)
    wire_format, before = read_as(turn, toolset, format, tokenizer, opened, prompt, ended)
    text = before.raw
    known = opened_by(prompt, wire_format, opened)
    if known == "auto":
        known = shown(text, wire_format) or False
    if before.calls and not before.faults and not HEAD.match(text):
        return Repair(wire_format.name, before, before, "exact")
    if not toolset.any_named(text.replace("\\_", "_")):
        return _unchanged(wire_format, before)
    for found in (way(before, wire_format, toolset, known) for way in (_mended, _rerouted)):
        if len(found) > 1:
            return Repair(
                wire_format.name,
                before,
                _without_calls(before),
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
            return Repair(wire_format.name, before, after, confidence, edits)
    return _unchanged(wire_format, before)


def _unchanged(wire_format: WireFormat, turn: Turn) -> Repair:
    if not turn.faults:
        return Repair(wire_format.name, turn, turn, "exact")
    reason = f"{turn.faults[0].message}; no call in it can be proved"
    return Repair(wire_format.name, turn, _without_calls(turn), "refused", reason=reason)


def _without_calls(turn: Turn) -> Turn:
    """What may be run of a turn that keeps its faults: nothing, as its other calls are unknown."""
    return replace(turn, calls=()) if turn.calls else turn


def _mended(
    before: Turn, wire_format: WireFormat, toolset: Toolset, opened: Known
) -> list[tuple[Turn, tuple[Edit, ...]]]:
    """The smallest repairs in the format itself, one for each outcome."""
    text = before.raw
    ended = all(fault.kind != "unfinished_turn" for fault in before.faults)
    read: dict[str, Turn] = {}
    changes = Changes(wire_format, toolset)
    reread = partial(read_turn, wire_format=wire_format, toolset=toolset, opened=opened)

    def sound(way: Way) -> bool:
        turn = read[way.text] = reread(way.text)
        return bool(turn.calls) and not turn.faults

    def proved(way: Way) -> bool:
        turn = read[way.text]
        return not (
            _is_quoted(way, turn, toolset)
            or _is_cut_off(way, text, wire_format, toolset, opened)
            or (not ended and reread(way.text, ended=False).cut)
            or _was_thought(way, turn, text, wire_format)
            or not accounted(way, turn, wire_format, toolset, opened)
            or any(invented(call, text) or spans_structure(call) for call in turn.calls)
            or has_rival(way, text, turn, toolset, reread)
        )

    encoded = {fault.kind for fault in before.faults} == {"double_encoded"}
    way = decoded(text, wire_format, toolset, opened) if encoded else None
    starts = [way] if way else list(_starts(text, wire_format, toolset, opened))
    found = solutions(wire_format, starts, changes, sound, changes.is_wrong)
    proven = [way for way in found if proved(way)]
    if proven and len({_said(read[way.text].calls) for way in found}) > 1:
        proven = found  # beside another reading as small as it, none is
    different: dict[str, tuple[Turn, tuple[Edit, ...]]] = {}
    for way in proven:
        turn = read[way.text]
        different.setdefault(_said(turn.calls), (turn, way.edits))
    return list(different.values())


def _is_quoted(way: Way, turn: Turn, toolset: Toolset) -> bool:
    """Whether it may be an example, a damaged call in the middle of prose; or whether that prose
    holds the remains of a call."""
    rules = {edit.rule for edit in way.edits}
    if not turn.text or all(rule.startswith("cut") or rule == "drop_head" for rule in rules):
        return False
    remains = toolset.any_named(turn.text) and _STRUCTURE.search(turn.text)
    return "cut_text" in rules or bool(remains)


def _was_thought(way: Way, turn: Turn, text: str, wire_format: WireFormat) -> bool:
    """Whether an edit takes away where the reasoning ends, and a call stands before that."""
    closing = fixed_text(wire_format.reasoning.closing)
    if not wire_format.ends_reasoning_only:
        return False
    ends = [(found.start(), found.end()) for found in re.finditer(re.escape(closing), text)]
    longer = 0
    for edit in way.edits:
        start, end = edit.span
        if any(start < last and first < end for first, last in ends):
            return turn.calls[0].span[0] < start + longer
        longer += len(edit.after) - len(edit.before)
    return False


def _is_cut_off(
    way: Way, text: str, wire_format: WireFormat, toolset: Toolset, opened: Known
) -> bool:
    """Whether the turn ends where more of a call may have been meant to come."""
    longer = 0
    for edit in way.edits:
        if edit.span[0] == len(text) and edit.after:
            end = len(text) + longer
            parser = TurnParser(wire_format, toolset, opened=opened)
            parser.feed(way.text[: end + len(edit.after)])
            further = filter(None, (",", wire_format.reader.heads.begin))
            return (
                parser.is_open()
                or text.rstrip(SPACE)[-1] not in "}])>"
                or any(follows(wire_format, way.text[:end] + begun, opened) for begun in further)
            )
        if edit.rule == "add_closer" and _IN_NUMBER.match(text, edit.span[0] - 1):
            return True
        longer += len(edit.after) - len(edit.before)
    return False


def _starts(text: str, wire_format: WireFormat, toolset: Toolset, opened: Known) -> Iterator[Way]:
    """The turn, without another speaker's header or foreign reasoning at its head, and with an
    opener where the body of a call may begin."""
    way = begin(wire_format, text, opened)
    if head := _head(text, wire_format):
        way = way.changed(Change(0, *head), 0, way.state)
    yield way
    opener, closer = wire_format.opener, wire_format.closer
    if not opener:
        return
    closed = closer and closer in way.text
    if way.text.lstrip(SPACE).startswith(opener):
        return
    thought = _thought(way.text, wire_format)
    for at in _bodies(way.text, toolset.names):
        before = way.text[thought:at].strip(SPACE)
        if before and not closed:
            return  # an example in prose, for all we know
        yield way.changed(Change(at, at, opener, "add_opener"), 0, way.state)


def _head(text: str, wire_format: WireFormat) -> tuple[int, str, str] | None:
    """What stands at the head of a turn that is not the format's: its end, and what is done."""
    if head := HEAD.match(text):
        return head.end(), "", "drop_head"
    thought = None if "<think>" in wire_format.controls else _THOUGHT.match(text)
    return (thought.end(), "", "drop_reasoning") if thought else None


def _thought(text: str, wire_format: WireFormat) -> int:
    """Where the reasoning at the head of a turn ends."""
    opening, closing = map(
        fixed_text, (wire_format.reasoning.opening, wire_format.reasoning.closing)
    )
    if not (closing and text.lstrip(SPACE).startswith(opening)):
        return 0
    return text.find(closing) + len(closing) if closing in text else 0


def _bodies(text: str, names: tuple[str, ...]) -> list[int]:
    """Where a line begins as the body of a call may."""
    found = _lines(names).finditer(text)
    return [line.end() for line in islice(found, _BODIES)]


@lru_cache(maxsize=256)
def _lines(names: tuple[str, ...]) -> re.Pattern[str]:
    named = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.compile(rf"^[ \t]*(?=[\[{{<\w\"][^\n]{{0,80}}?(?:{named})|\{{[ \t]*$)", re.MULTILINE)


def _rerouted(
    before: Turn, wire_format: WireFormat, toolset: Toolset, opened: Known
) -> list[tuple[Turn, tuple[Edit, ...]]]:
    """All of the turn as calls in other formats, re-emitted in this one."""
    if opened:
        return []  # what was thought comes first
    text = before.raw
    head = _head(text, wire_format)
    own = text[head[0] if head else 0 :]
    for bodies in _readings(own, wire_format):
        different: dict[str, tuple[Turn, tuple[Edit, ...]]] = {}
        for other, body in bodies:
            calls = _alone(body, other, toolset)
            if not calls:
                continue
            native = _native(calls, wire_format)
            turn = read_turn(native, wire_format, toolset)
            if _said(turn.calls) == _said(calls) and not turn.faults:
                edit = Edit((0, len(text)), text, native, "reroute")
                different.setdefault(_said(calls), (turn, (edit,)))
        if different:
            return list(different.values())
    return []


def _readings(text: str, wire_format: WireFormat) -> Iterator[Iterator[tuple[WireFormat, str]]]:
    """What the turn may be in other formats: as it stands; without a fence, or the format's own
    tags; with the tags that the other format would have."""
    body = text.strip(SPACE)
    fenced = _FENCED.fullmatch(body)
    opener, closer = wire_format.opener, wire_format.closer
    inner = fenced[1].strip(SPACE) if fenced else body
    if opener and closer and body.startswith(opener) and body.endswith(closer):
        inner = body[len(opener) : -len(closer)].strip(SPACE)
    if not wire_format.is_json and inner.startswith(wire_format.markup):
        return  # the format's own: what is written alike in others means something else there
    others = [other for other in guesses() if other.name != wire_format.name]
    tagless = [other for other in guesses() if not other.opener]
    yield (
        (other, each)
        for other in others
        if not other.opener or any(control in text for control in other.controls)
        for each in dict.fromkeys((body, text))
    )
    listed = _LISTED.fullmatch(inner)
    inner = (listed or _WRAPPED.fullmatch(inner) or [inner] * 2)[1].strip(SPACE)
    inner = _unquoted(inner)
    yield ((other, inner) for other in tagless if inner != body)
    if len(inner) <= _LONGEST_UNTAGGED and inner[:1] in ("{", "[", "<"):
        yield (
            (other, f"{other.opener}{inner}{other.closer}")
            for other in dict.fromkeys([*others, WireFormat.load("hermes")])
            if other.opener
        )


def _unquoted(text: str) -> str:
    """Python objects as JSON, and a list of calls in quotes without them."""
    if len(text) > _LONGEST_UNTAGGED or "\\" in text:
        return text
    if text[:1] in ("{", "[") and IN_PYTHON.search(text):
        with suppress(ValueError):
            value = read_literal(checked(text), False)
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return f"[{', '.join(value)}]"
            return json.dumps(value, ensure_ascii=False)
    return text


def _alone(body: str, other: WireFormat, toolset: Toolset) -> tuple[Call, ...]:
    """The calls of a turn that says nothing else, and whose words are all its own."""
    if not other.may_call(body):
        return ()
    turn = read_turn(body, other, toolset)
    if turn.faults or turn.text or turn.reasoning:
        return ()
    sound = (not invented(call, body) and not holds_tags(call, other) for call in turn.calls)
    return turn.calls if all(sound) else ()


def _native(calls: Sequence[Call], wire_format: WireFormat) -> str:
    """These calls in the format; empty if it cannot write them."""
    try:
        return render(
            wire_format, [{"name": call.name, "arguments": call.arguments} for call in calls]
        )
    except FormatError:
        return ""


def _said(calls: Sequence[Call]) -> str:
    return repr([(call.name, call.arguments) for call in calls])
