"""Writes calls in a wire format, as its chat template would: the way back from the parser."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import FormatError
from .nodes import Alt, Control, Free, Literal, Node, Pattern, Ref, Repeat, Seq, Slot, walk
from .reader import CDATA, keys_of
from .wire_format import WireFormat, library


def render(
    wire_format: WireFormat,
    calls: Sequence[Mapping[str, Any]],
    text: str = "",
    first: int = 0,
    *,
    reasoning: str = "",
    opened: bool = False,
) -> str:
    """A turn that makes these calls, without its end token.

    Args:
        calls: at least one, each with `name` and `arguments`.
        text: what is said before the calls, as it is; a line end between them is the caller's.
        first: how many calls the conversation had before: formats whose ids count go on from there.
        reasoning: what was thought, which the format's reasoning tags are put around.
        opened: the prompt has opened the reasoning already, so its opening tag is left out.

    Raises:
        FormatError: the format cannot say it, as several calls in harmony.
    """
    if reasoning or opened:
        thought = _thought(wire_format, reasoning, opened)
        return thought + render(wire_format, calls, text, first)
    if not calls:
        raise FormatError("there are no calls to render")
    writer = _Writer(wire_format, calls, text, first)
    try:
        written = writer.write(wire_format.rules["calls"])
    except _ImpossibleError as impossible:
        raise FormatError(f"{wire_format.name} cannot write these calls: {impossible}") from None
    if writer.done < len(calls) or not writer.said:
        what = "text before a call" if writer.done == len(calls) else "several calls in a turn"
        raise FormatError(f"{wire_format.name} has no place for {what}")
    return written


def _thought(wire_format: WireFormat, reasoning: str, opened: bool) -> str:
    """Reasoning between its tags, or without the first of them."""
    rules = wire_format.rules
    if "reasoning" not in rules:
        raise FormatError(f"{wire_format.name} has no place for reasoning")
    if opened and rules["opened"] == rules["start"]:
        raise FormatError(f"{wire_format.name}: no prompt opens the reasoning")
    written = _Writer(wire_format, (), "", 0).write(rules["reasoning"])
    opening, _, closing = written.partition(_REASONING)
    return ("" if opened else opening) + reasoning + closing


_REASONING = "\0"  # stands where reasoning is written


class _ImpossibleError(Exception):
    """This alternative cannot be written."""


class _Writer:
    def __init__(
        self, wire_format: WireFormat, calls: Sequence[Mapping[str, Any]], text: str, first: int
    ) -> None:
        self.rules, self.calls, self.text, self.first = wire_format.rules, calls, text, first
        self.keys = keys_of(wire_format.rules)
        self.done = 0
        self.said = not text
        self.argument: tuple[str, Any] | None = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.calls[self.done]["arguments"]  # type: ignore[no-any-return]

    def write(self, node: Node) -> str:
        match node:
            case Literal(text) | Control(text):
                return text
            case Pattern(_, _, habit):
                if habit is None:
                    raise _ImpossibleError("a terminal has no habit")
                index = self.first + self.done
                return habit.format(index=index, number=index + 1)
            case Free("REASONING"):
                return _REASONING
            case Free():
                self.said = True
                return self.text
            case Slot(name):
                return self.slot(name)
            case Ref("call" | "another" as rule):
                written = self.write(self.rules[rule])
                self.done += 1
                return written
            case Ref(rule):
                return self.write(self.rules[rule])
            case Repeat(Ref("argument"), 0, None):
                return "".join(self.each_argument())
            case Seq((Ref("argument"), Repeat(Seq((separator, Ref("argument"))), 0, None))):
                return self.write(separator).join(self.each_argument())
            case Seq(items):
                return "".join(map(self.write, items))
            case Alt(options):
                return self.first_possible(options)
            case Repeat(Ref("further"), 0, None):
                return "".join(
                    self.write(self.rules["further"]) for _ in range(len(self.calls) - self.done)
                )
            case Repeat(item, 0, _):
                return self.write(item) if self.wanted(item) else ""
            case _:
                raise _ImpossibleError(f"{node!r} is not to be written")

    def first_possible(self, options: Sequence[Node]) -> str:
        reason = _ImpossibleError("there is no alternative")
        for option in options:
            done, said = self.done, self.said
            try:
                return self.write(option)
            except _ImpossibleError as impossible:
                self.done, self.said, reason = done, said, impossible
        raise reason

    def wanted(self, item: Node) -> bool:
        """Whether something optional is written: habits, ids, text and arguments if any."""
        if isinstance(item, Pattern):
            return item.habit is not None
        if item == Free("REASONING"):
            return True
        inner = [found for node in walk(item) for found in self.below(node)]
        if any(isinstance(node, Free) for node in inner):
            return not self.said
        if Ref("argument") in inner:
            return bool(self.arguments)
        return Ref("id") in inner

    def below(self, node: Node) -> Sequence[Node]:
        """A node, and what a reference to another rule stands for."""
        if isinstance(node, Ref) and node.rule != "argument":
            return [node, *walk(self.rules[node.rule])]
        return [node]

    def each_argument(self) -> Sequence[str]:
        written = []
        for item in self.arguments.items():
            self.argument = item
            written.append(self.write(self.rules["argument"]))
        return written

    def slot(self, name: str) -> str:
        match name:
            case "NAME":
                return str(self.calls[self.done]["name"])
            case "ARGUMENTS":
                return _json(self.arguments)
            case "GEMMA":
                quote = self.rules["QUOTE"]
                assert isinstance(quote, Control)
                return _gemma(self.arguments, quote.text)
            case "ELEMENTS":
                return _elements(self.arguments)
        assert self.argument is not None
        key, value = self.argument
        if name in _VALUES:
            return str(_VALUES[name](value))
        written = self.keys.write(key)
        if written is None:
            raise _ImpossibleError(f"the name of the argument {key!r} cannot be written")
        return written


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _of(*kinds: type | None) -> Any:
    def write(value: Any) -> str:
        if type(value) not in kinds:
            raise _ImpossibleError(f"{value!r} has another type")
        return value if isinstance(value, str) else _json(value)

    return write


def _value(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _cdata(value: Any) -> str:
    """As MiniCPM 5 writes it: between `CDATA` where it needs to be."""
    needed = isinstance(value, str) and any(sign in value for sign in "<&\n")
    return value.join(CDATA) if needed else _value(value)


def _literal(value: Any) -> str:
    return _python(value) if isinstance(value, str) else _json(value)


def python_text(value: str, quote: str) -> str:
    """A string as a Python literal, between quotes of that kind."""
    body = "".join(_PYTHON_ESCAPES.get(c, c) for c in value)
    return quote + body.replace(quote, "\\" + quote) + quote


_PYTHON_ESCAPES = {chr(code): f"\\x{code:02x}" for code in range(32)} | {
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


def _python(value: Any) -> str:
    match value:
        case str():
            return python_text(value, "'")
        case dict():
            return "{" + ", ".join(f"{_python(k)}: {_python(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_python, value)) + "]"
        case None | bool():
            return str(value)
        case _:
            return _json(value)


def _named(values: str, terminal: str, key: str) -> str:
    """A name of a member, which the grammar file of these values has to allow."""
    name = library(values)[terminal]
    assert isinstance(name, Pattern)
    if not re.fullmatch(name.regex, key):
        raise _ImpossibleError(f"the name of the argument {key!r} cannot be written")
    return key


def _gemma(value: Any, quote: str) -> str:
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case dict():
            members = (f"{_named('gemma', 'BARE', k)}:{_gemma(v, quote)}" for k, v in value.items())
            return "{" + ",".join(members) + "}"
        case list():
            return "[" + ",".join(_gemma(item, quote) for item in value) + "]"
        case _:
            return _json(value)


def _elements(value: Any) -> str:
    lead = library("elements")["LEAD"]
    assert isinstance(lead, Control)
    match value:
        case dict():
            members = list(value.items())
        case list():
            members = [("item", item) for item in value]
        case _:
            return _value(value) + lead.text
    named = ((_named("elements", "ELEMENT", key), inner) for key, inner in members)
    inside = (f"<{key}>{_elements(inner)}</{key}>{lead.text}" for key, inner in named)
    return lead.text + "".join(inside)


def _typed(value: Any) -> str:
    match value:
        case str():
            kind, inside = "raw", value
        case dict():
            members = (f'<cofl:value name="{k}" type="{_typed(v)}' for k, v in value.items())
            kind, inside = "dict", "".join(members)
        case list():
            kind, inside = "list", "".join(f'<cofl:value type="{_typed(v)}' for v in value)
        case _:
            kind, inside = "json", _json(value)
    return f'{kind}">{inside}</cofl:value>'


_VALUES = {
    "TYPED": _typed,
    "PYTHON": _python,
    "LITERAL": _literal,
    "VALUE": _value,
    "CDATA": _cdata,
    "LINES": lambda value: f"\n{_value(value)}\n",
    "STRING": _of(str),
    "OTHER": _of(type(None), bool, int, float, dict, list),
    "NUMBER": _of(int, float),
    "BOOLEAN": _of(bool),
    "OBJECT": _of(dict),
    "ARRAY": _of(list),
    "NULL": _of(type(None)),
}
