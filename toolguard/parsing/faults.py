"""Names what stands where a parser cannot follow a turn: the fault, and how far it reaches.

All that is looked at ends with the first marker behind that place: what a stream knows there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..formats.reader import MARKED, SPACE, STRAY, control_pattern, unmark
from ..formats.wire_format import WireFormat
from ..tools.toolset import Tool, Toolset
from .turn import Fault, FaultKind, Where
from .vocabulary import CURLY, ROLE, SENTINEL

_ANSWERS = re.compile(r"respon|result|observation|output|message_tool", re.I)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_JOINED = re.compile(r'[{,]\s*"[\w.-]+=[^"]*"\Z')
_CODE = re.compile(r"(?!(?:true|false|null)\b)[A-Za-z_][\w.]{0,80}(?=\s?[(\[\"'+*%])")
_PYTHON = re.compile(r"(?:True|False|None|nan|NaN|undefined)\b")
_OPERATION = re.compile(r"[+*%/][^,}\]]{0,80}")
_SPACES = re.compile(f"[{SPACE}]+")
CALL_ID = "functions."
"""What the id of a call begins with that holds its tool's name."""
_LONGEST_SPACE = 32  # what the grammar of JSON allows


class Found(NamedTuple):
    """A fault before it is told: its span is one of marked text."""

    kind: FaultKind
    start: int
    end: int
    message: str
    where: Where

    def told(self, wire_format: WireFormat) -> Fault:
        """As a fault of unmarked text."""
        span = self.start, self.end
        return Fault(self.kind, span, self.message, self.where, wire_format.name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parser cannot follow.

    Attributes:
        source: the turn as marked text, no further than is known.
        position: what cannot be there begins here.
        body: where the inside of the call that is open begins, behind its opener; None in none.
        named: whether the call has its name already.
        ends_in_name: whether the name is the last thing before.
        expected: the terminals that may be there.
        wire_format: what the turn is read as.
        toolset: the tools offered.
    """

    source: str
    position: int
    body: int | None
    named: bool
    ends_in_name: bool
    expected: Collection[str]
    wire_format: WireFormat
    toolset: Toolset

    @property
    def before(self) -> str:
        """What the call says up to there, or the turn if no call is open."""
        return self.source[self.body or 0 : self.position]

    @property
    def rest(self) -> str:
        return self.source[self.position :]

    def found(
        self, kind: FaultKind, size: int | None, message: str, where: Where = "call"
    ) -> Found:
        """A fault there, of `size` characters or all that is left."""
        end = len(self.source) if size is None else self.position + size
        return Found(kind, self.position, end, message, where)


def control_there(place: Place) -> str:
    """The control token that stands there, as the source has it; empty if none does."""
    found = place.wire_format.any_control.match(place.source, place.position)
    return found[0] if found else ""


def is_response(control: str) -> bool:
    """Whether a control token frames what a tool answered."""
    return _ANSWERS.search(control) is not None


def is_role(control: str, wire_format: WireFormat) -> bool:
    """Whether a control token begins somebody's turn: the format's rules have no place for it in
    a turn."""
    return (
        control in wire_format.framing
        and not is_response(control)
        and control not in wire_format.ends
    ) or re.search(r"user|<\|start\|>", control, re.I) is not None


def name_control(place: Place, control: str, reasoning: bool) -> Found:
    """A control token that has no business there."""
    own, inside = place.wire_format, place.body is not None
    spelled = unmark(control, own.controls)
    size = len(control)
    if control == STRAY:
        where: Where = "call" if inside else "around"
        message = "a special token that the format does not have"
        return place.found("foreign_token", size, message, where)
    if is_response(spelled):
        message = f"{spelled!r}: the model writes what only a tool may answer"
        return place.found("fabricated_response", size, message, "turn")
    if reasoning and not is_role(spelled, own):
        return place.found("stray_control", size, f"{spelled!r} inside the reasoning", "turn")
    if not inside:
        if is_role(spelled, own):
            message = f"{spelled!r}: the turn goes on as another speaker's"
            return place.found("run_on", size, message, "turn")
        if spelled in own.ends:
            message = f"{spelled!r} ends the turn, and it goes on"
            return place.found("run_on", size, message, "turn")
        if spelled == own.closer:
            message = f"{spelled!r} closes a call that nothing opened"
            return place.found("orphan_closer", size, message, "around")
        message = f"{spelled!r} where it has no business"
        return place.found("stray_control", size, message, "around")
    if spelled == own.opener:
        return place.found("doubled_opener", size, f"{spelled!r} inside a call")
    if is_role(spelled, own) and not place.named:
        return place.found("role_in_call", size, f"{spelled!r} inside a call")
    awaits = _awaited(place)
    if place.ends_in_name:
        if holds_names(own) and not awaits:
            name = re.split(control_pattern(own.controls), place.before)[-1].strip(SPACE)
            start = place.position - len(name)
            message = f"{name!r} is no id of a call: it has no number"
            return Found("wrong_call_id", start, place.position, message, "call")
        if spelled not in own.inner or own.is_json:
            return place.found("control_in_name", size, f"{spelled!r} inside the tool's name")
    if spelled == own.closer and own.is_json:
        return place.found("bracket_mismatch", size, f"{spelled!r} before the brackets are closed")
    if spelled in (own.closer, *own.inner) and not own.is_json:
        missing = f", {awaits[0]!r} is missing" if awaits else ""
        return place.found("dropped_tag", size, f"{spelled!r} out of turn{missing}")
    return place.found("stray_control", size, f"{spelled!r} inside a call")


def name_in_call(place: Place) -> Found:
    """Text inside a call that cannot be there."""
    rest, before = place.rest, place.before.strip(SPACE)
    near = unmark(rest[:20], place.wire_format.controls)
    if space := _SPACES.match(rest):
        start = place.position - len(place.before) + len(place.before.rstrip(SPACE))
        end = place.position + space.end()
        if end - start > _LONGEST_SPACE:
            message = "white space without an end"
            return Found("whitespace_loop", start, end, message, "call")
    if sentinel := re.match(SENTINEL, rest):
        message = f"{sentinel[0]!r} is no token of the format"
        return place.found("foreign_token", len(sentinel[0]), message)
    if not re.sub(control_pattern(place.wire_format.controls), "", before):
        if role := re.match(rf"{ROLE}(?![\w.-])", rest):
            return place.found("role_in_call", len(role[0]), f"the role {role[0]!r} inside a call")
        head = re.split(rf"[{SPACE}{{(\[]|{MARKED.pattern}|<", rest, maxsplit=1)[0]
        if holds_names(place.wire_format) and any(name in head for name in place.toolset.names):
            return place.found("wrong_call_id", len(head), f"{head!r} is no id of a call")
        if prefix := re.match(r"[^\w{}<\[\]\"'\s]{1,8}(?=\s?[{<\w])", rest):
            message = f"{prefix[0]!r} in front of the call"
            return place.found("stray_prefix", len(prefix[0]), message)
    if tag := _torn_tag(place):
        message = f"{tag!r} without its brackets"
        return place.found("dropped_brackets", len(tag), message)
    awaits = _awaited(place)
    if awaits and not place.wire_format.is_json and place.named and rest[0] not in SPACE:
        return place.found("dropped_tag", None, f"{awaits[0]!r} is missing before {near!r}")
    if not place.wire_format.is_json:
        return place.found("malformed_call", None, f"the call breaks off at {near!r}")
    return _name_in_json(place, rest, before, near)


def _name_in_json(place: Place, rest: str, before: str, near: str) -> Found:
    first = rest[0]
    if first in CURLY:
        return place.found("curly_quotes", 1, f"{first} for a straight quotation mark")
    if first == "=" or re.match(r'"[\w.-]{1,60}"?\s?=', rest):
        size = rest.index("=") + 1
        return place.found("equals_for_colon", size, f"'=' for ':' at {near!r}")
    if first == "," and _JOINED.search(before[-200:]):
        return place.found("equals_for_colon", 1, f"'=' inside the string before {near!r}")
    if first in ")]}" and first == open_bracket(before):
        return place.found("malformed_call", None, f"the call closes too early at {near!r}")
    if first in ")]}":
        return place.found("bracket_mismatch", 1, f"{first!r} closes no bracket of its kind")
    if first == '"':
        string = _STRING.match(rest)
        if string is None:
            if '"' not in rest[1:]:
                return place.found("unclosed_string", None, f"a string that never ends: {near!r}")
            return place.found("malformed_call", None, f"no string of JSON: {near!r}")
        if isinstance(_decoded(string[0]), dict):
            return place.found("double_encoded", len(string[0]), "an object inside a string")
        if before.endswith(",") and re.match(rf"[{SPACE}]*:", rest[string.end() :]):
            message = f"{string[0][:40]} beside the name, not among the arguments"
            return place.found("flattened_arguments", len(string[0]), message)
    code = _CODE.match(rest) or _PYTHON.match(rest)
    if code is None and before[-1:] in '")0123456789':
        code = _OPERATION.match(rest)
    if code:
        return place.found("code_as_value", len(code[0]), f"code for a value: {near!r}")
    if sign := re.match(r"[^\w\s{}\[\]\"',:-]{1,8}(?=[\s]?[\"{])", rest):
        return place.found("stray_prefix", len(sign[0]), f"{sign[0]!r} in front of {near!r}")
    return place.found("malformed_call", None, f"the call breaks off at {near!r}")


def unknown(name: str, toolset: Toolset, wire_format: WireFormat) -> tuple[FaultKind, str]:
    """What is wrong with a call to a tool that is not offered."""
    if holds_names(wire_format) and call_id(toolset.names).fullmatch(name):
        return "wrong_call_id", f"{name!r} is no id of a call"
    if parts := fused(name, toolset):
        return "fused_name", f"{parts[0]!r} and the argument {parts[1]!r} in one word"
    offered = ", ".join(toolset.names) or "none"
    return "unknown_tool", f"no tool {name!r} is offered ({offered})"


def refused(name: str, arguments: Any, toolset: Toolset) -> list[tuple[FaultKind, str]]:
    """What is wrong with arguments that their tool's schema refuses; empty if it does not."""
    errors = toolset.errors(name, arguments)
    kind = encoded_twice(arguments, toolset[name], toolset) if errors else None
    return [(kind or "bad_arguments", line(error)) for error in errors[: 1 if kind else None]]


def line(error: object) -> str:
    """What an error says, on one line of bearable length."""
    said = " ".join(str(error).split())
    return said if len(said) <= 200 else f"{said[:199]}…"


def fused(name: str, toolset: Toolset) -> tuple[str, str] | None:
    """The tool and the argument that run into one word, if that is what a name is."""
    for tool in toolset:
        key = name.removeprefix(tool.name)
        if key != name and key.strip("_.:") in tool.parameters.get("properties", {}):
            return tool.name, key
    return None


def encoded_twice(arguments: Any, tool: Tool, toolset: Toolset) -> FaultKind | None:
    """How arguments that their schema refuses were encoded once too often, if that is all."""
    if not isinstance(arguments, dict):
        return None
    decoded = {key: _decoded_value(value) for key, value in arguments.items()}
    if decoded != arguments and not toolset.errors(tool.name, decoded):
        return "double_encoded"
    plain = {key: _unescaped(value) for key, value in arguments.items()}
    if plain != arguments and not toolset.errors(tool.name, plain):
        return "double_escaped"
    return None


def _decoded_value(value: Any) -> Any:
    """What a string says, if it is an object or an array as JSON; else the value."""
    decoded = _held(value) if isinstance(value, str) else None
    return value if decoded is None else decoded


def _decoded(string: str) -> Any:
    """The object or the array that a JSON string holds as text; None if it holds neither."""
    try:
        return _held(json.loads(string, strict=False))
    except (ValueError, RecursionError):
        return None


def _held(text: str) -> Any:
    """The object or the array that a text is as JSON; None if it is neither."""
    if text.lstrip(SPACE)[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _unescaped(value: Any) -> Any:
    """A string whose line ends were escaped twice, as it was meant; any other value as it is."""
    if not isinstance(value, str) or "\n" in value:
        return value
    return re.sub(r"\\([nt\"])", lambda found: _ESCAPES[found[1]], value)


_ESCAPES: Mapping[str, str] = {"n": "\n", "t": "\t", '"': '"'}


BRACKETS = {"{": "}", "[": "]", "(": ")"}
"""What closes each."""


def open_bracket(text: str) -> str:
    """What would close the bracket of JSON that is open at the end of a text; empty if none is."""
    stack = [""]
    for sign in re.sub(_STRING, "", text):
        if sign in "{[":
            stack.append(BRACKETS[sign])
        elif sign == stack[-1]:
            stack.pop()
    return stack[-1]


def holds_names(wire_format: WireFormat) -> bool:
    """Whether the id of a call holds its tool's name."""
    return wire_format.about.get("call ids", "").startswith(CALL_ID)


@lru_cache(maxsize=256)
def call_id(names: tuple[str, ...]) -> re.Pattern[str]:
    """What may be meant for the id of a call: a name, and perhaps its number."""
    named = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
    return re.compile(rf"(?:functions\W|functions_)?({named})(?:[\W_](\d+))?")


def _awaited(place: Place) -> list[str]:
    """The control tokens that might stand there."""
    controls = place.wire_format.controls
    indices = [int(name[8:]) for name in sorted(place.expected) if name.startswith("CONTROL_")]
    return [controls[index] for index in indices]


def _torn_tag(place: Place) -> str:
    """The markup of a call that stands there, its bracket or slash lost; empty if none does."""
    for text in sorted(place.wire_format.markup, key=len, reverse=True):
        bare = text.lstrip("</").rstrip(">")
        if text[0] == "<" and len(bare) > 3 and place.rest.startswith(bare):
            return bare
    return ""
