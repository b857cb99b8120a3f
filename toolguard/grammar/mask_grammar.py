"""Writes a request's grammar in llguidance's notation: the mask product of a wire format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from ..formats.lines import closing
from ..formats.nodes import (
    Alt,
    Control,
    Free,
    Key,
    Literal,
    Members,
    Node,
    Pattern,
    Raw,
    Ref,
    Repeat,
    Rules,
    Scalar,
    Seq,
    Taken,
    Until,
    walk,
)
from ..formats.reader import LEADING_SPACE, delimited
from .automaton import shortest_end
from .witnesses import witnesses

_SPACE = r"[ \t\r\n]"
_ONE_TEXT = rf"{_SPACE}{{0,{LEADING_SPACE}}}[^ \t\r\n](?s:.*)"
_FREE = {
    "TEXT": rf"{_ONE_TEXT}|{_SPACE}{{1,{LEADING_SPACE}}}",
    "REPLY": _ONE_TEXT,
    "REASONING": r"(?s:.+)",
    "BLANK": rf"{_SPACE}{{1,{LEADING_SPACE}}}",
}
_ANYTHING = (r"(?s:.*)", r"[\s\S]*", r"([\s\S]*)")
_NEVER = 'never::_: "x" %if bit_set(0)'


def mask_grammar(rules: Rules, start: str, controls: Sequence[str], ids: Mapping[str, int]) -> str:
    """The grammar as the mask engine takes it.

    Args:
        controls: the text of the format's control tokens; free text contains none of them.
        ids: the token id of those that the tokenizer has; the others are spelled.
    """
    writer = _Writer(controls, ids)
    lines = [f"start: {_rule(start)}"]
    lines += [f"{_rule(name)}: {writer.options(node)}" for name, node in rules.items()]
    return "\n".join([*lines, *writer.definitions()])


@lru_cache(maxsize=4096)
def terminal_grammar(node: Node, controls: tuple[str, ...]) -> str:
    """A grammar of this one terminal."""
    writer = _Writer(controls, {})
    return "\n".join([f"start: {writer.options(node)}", *writer.definitions()])


def _rule(name: str) -> str:
    # llguidance reads names with a leading letter or underscore; `start` is its own.
    return f"r_{name}"


class _Writer:
    """Writes nodes. Equal terminals are written once, and so are equal rules of several options and
    equal members: the engine takes its time for each, and tools have much in common."""

    def __init__(self, controls: Sequence[str], ids: Mapping[str, int]) -> None:
        self.controls = tuple(controls)
        self.ids = ids
        self.terminals: dict[str, str] = {}
        self.rules: dict[str, str] = {}
        self.objects: dict[tuple[object, ...], str] = {}
        self.members_of: list[str] = []
        self.written: dict[int, str] = {}

    def definitions(self) -> list[str]:
        named = {**self.rules, **self.terminals}
        return [
            _NEVER,
            *self.members_of,
            *(f"{name}: {expression}" for expression, name in named.items()),
        ]

    def terminal(self, expression: str) -> str:
        return self.terminals.setdefault(expression, f"T{len(self.terminals)}")

    def rule(self, expression: str) -> str:
        return self.rules.setdefault(expression, f"o{len(self.rules)}")

    def options(self, node: Node) -> str:
        """A node as the whole of a rule."""
        return (
            " | ".join(map(self.write, node.options)) if isinstance(node, Alt) else self.write(node)
        )

    def write(self, node: Node) -> str:
        """A node as a part of a sequence."""
        if not isinstance(node, Alt | Members):
            return self.part(node)
        if id(node) not in self.written:  # one node may stand in several places
            self.written[id(node)] = self.part(node)
        return self.written[id(node)]

    def part(self, node: Node) -> str:
        match node:
            case Literal(text):
                return json.dumps(text)
            case Pattern(regex, also):
                return self.terminal(delimited(regex) + _also(also))
            case Seq(items):
                return self.sequence(items)
            case Ref(rule):
                return _rule(rule)
            case Repeat(item, low, high):
                times = f"{{{low},{'' if high is None else high}}}"
                return self.rule(f"({self.options(item)}){times}")
            case Alt():
                return self.rule(self.options(node))
            case Members():
                return self.members(node)
            case Free("BLANK"):
                return self.terminal(delimited(_FREE["BLANK"]))
            case Free(name, barred):
                bar = _bar(barred)
                text = self.terminal(
                    f"{delimited(_FREE[name])} & {self.without(self.controls)}{bar}"
                )
                blank = name == "REASONING"
                return self.witnessed(text, witnesses(self.controls, blank, barred))
            case Until(_, stop, also):
                regex, held, not_taken = _but(node)
                ended = self.before(stop, held=held)
                if node.lined:
                    lined = closing(stop)
                    inside = "|".join(filter(None, (lined.held, held)))
                    ended = f"~{delimited(f'(?s:.*)(({inside})(?s:.*)|{lined.last})')}"
                condition = f"{ended}{_not(not_taken)}"
                text = self.terminal(
                    f"({delimited(regex)}{_also(also)} & {condition}) {json.dumps(stop)}"
                )
                return self.anything(text, node)
            case Key():
                known = "".join(f" & ~{json.dumps(key)}" for key in node.spelled)
                return self.terminal(delimited(node.regex) + known)
            case Control(text):
                return self.token(text)
            case Scalar(schema):
                return f"%json {schema}"
            case _:
                raise TypeError(f"{node!r} has no place in a mask grammar")

    def token(self, text: str) -> str:
        spelled = json.dumps(text)
        return self.rule(f"<[{self.ids[text]}]> | {spelled}") if text in self.ids else spelled

    def sequence(self, items: Sequence[Node]) -> str:
        """A sequence; free text that runs into a control token needs a terminal for both.

        The engine never splits a lexeme: text that may contain `<` would swallow a spelled-out
        `<tool_call>`. The terminal of the text up to and including the token cannot.
        """
        written: list[str] = []
        index = 0
        while index < len(items):
            item = items[index]
            following = items[index + 1] if index + 1 < len(items) else None
            if isinstance(following, Control) and (before := _text(item)) is not None:
                written.append(self.text_until(item, before, following.text))
                index += 2
            else:
                written.append(self.write(item))
                index += 1
        return " ".join(written) or '""'

    def text_until(self, node: Node, before: str, text: str) -> str:
        if isinstance(node, Raw):
            spelled = self.write(Until(node.regex, text, node.also, node.taken))
            written = self.raw(node, text)
        elif any(part == Free("BLANK") for part in walk(node)):
            spelled = self.terminal(f"{delimited(before)} {json.dumps(text)}")
            written = self.write(node)
        else:
            (free,) = (inner for inner in walk(node) if isinstance(inner, Free))
            condition = f"{self.before(text, self.controls)}{_bar(free.barred)}"
            spelled = self.terminal(f"({delimited(before)} & {condition}) {json.dumps(text)}")
            blank = free.name == "REASONING"
            spelled = self.witnessed(spelled, witnesses(self.controls, blank, free.barred))
            written = self.write(node)
        if text not in self.ids:
            return spelled
        return self.rule(f"{written} <[{self.ids[text]}]> | {spelled}")

    def raw(self, node: Raw, stop: str) -> str:
        """A string without quotes that does not spell what ends it; no terminal may be empty."""
        regex, held, not_taken = _but(node)
        conditions = f"{_also(node.also)} & {self.without([stop], held=held)}{_not(not_taken)}"
        name = self.terminal(f"{delimited(regex)} & /(?s:.+)/{conditions}")
        name = self.anything(name, node)
        may_be_empty = node.strings is None or shortest_end(node.strings) == ""
        return f"{name}?" if may_be_empty and re.fullmatch(node.regex, "") else name

    def anything(self, text: str, node: Raw | Until) -> str:
        """The terminal of a string without quotes, which is most often any string."""
        if node.also is not None or node.regex not in _ANYTHING:
            return text
        if node.taken is None:
            return self.witnessed(text, witnesses((node.stop,)))
        alike = [each for each in node.taken.openers if each[0] == node.stop[0]]
        others = tuple(each for each in node.taken.openers if each not in alike)
        stops = (node.stop, *node.taken.marks, *alike)
        return self.witnessed(text, witnesses(stops, openers=others))

    def witnessed(self, text: str, regexes: Sequence[str]) -> str:
        """The terminal `text`, and beside it its witnesses, which lead nowhere."""
        names = [self.terminal(delimited(regex)) for regex in regexes]
        return self.rule(" | ".join([text, *(f"{name} never::0x0" for name in names)]))

    def before(self, end: str, controls: Sequence[str] = (), held: str = "") -> str:
        """Text that has none of the control tokens, nor `end`, before the end of this one, and
        nothing that matches `held`.

        A condition on the text alone: one on text and end takes the engine thirty times as long. So
        the text does not end where a control token would run on into `end`, either.
        """
        controls = controls or [end]
        begun = [
            control.removesuffix(end[:i])
            for control in controls
            for i in range(1, len(end))
            if control.endswith(end[:i])
        ]
        return self.without(controls, begun, held)

    def without(self, controls: Sequence[str], endings: Sequence[str] = (), held: str = "") -> str:
        """Text that has none of the control tokens in it, and nothing that matches `held`, and none
        of the endings at its end.

        One condition on all that is in it: each further one takes the engine twice as long.
        """
        ended = f" & ~{delimited(f'(?s:.*)({_any(endings)})')}" if endings else ""
        inside = "|".join(filter(None, (_any(controls), held)))
        return f"~{delimited(f'(?s:.*)({inside})(?s:.*)')}{ended}"

    def members(self, node: Members) -> str:
        separator = self.write(node.separator)
        written = tuple(self.write(member.node) for member in node.members)
        extra = None if node.extra is None else self.write(node.extra)
        needed = tuple(i for i, member in enumerate(node.members) if member.required)
        key = (written, needed, separator, extra, node.low, node.high)
        name = self.objects.get(key)
        if name is None:
            name = self.objects[key] = f"m_{len(self.objects)}"
            self.members_of.append(_in_any_order(name, node, separator, written, extra))
        return f"{name}::0x0"


def _in_any_order(
    name: str, node: Members, sep: str, written: Sequence[str], extra: str | None
) -> str:
    """Members one after the other, each at most once as far as it is counted."""
    counted = node.counted
    bits = {index: bit for bit, index in enumerate(counted)}
    needed = [f"bit_set({bits[i]})" for i in counted if node.members[i].required]
    low = max(node.low, 1)
    options = []
    for index, each in enumerate(written):
        bit = bits.get(index)
        once = f"set_bit({bit}) %if bit_clear({bit})"
        options.append(f"{each} {name}_::{'_' if bit is None else once}")
    more = ""
    if extra is not None:
        options.append(f"{extra} {name}_::_")
    elif len(counted) == len(written):
        if low > len(needed):
            needed.append(f"bit_count_ge([0:{len(counted)}], {low})")
        most = len(counted) if node.high is None else min(node.high, len(counted))
        more = f" %if bit_count_lt([0:{len(counted)}], {most})"
    done = f" %if {_all(needed)}" if needed else ""
    return f'{name}::_: {" | ".join(options)}\n{name}_::_: ""{done} | {sep} {name}::_{more}'


def _but(node: Raw | Until) -> tuple[str, str, str]:
    """A string without quotes but for what is taken, as three regular expressions: what it is, what
    is nowhere in it, and what it is not. The engine sees at once that nothing is left of the first,
    not of the others."""
    taken = node.taken or Taken("", (), ())
    if isinstance(node, Until) and node.lined:
        taken = replace(taken, openers=(*taken.openers, node.stop))
    if node.regex not in _ANYTHING or not taken.openers:
        return node.regex, taken.inside, taken.begun
    return _unlike(taken.openers), taken.inside, ""


@lru_cache(maxsize=1024)
def _unlike(openers: tuple[str, ...]) -> str:
    """A regular expression for all that begins with none of these."""
    heads = dict.fromkeys(opener[0] for opener in openers)
    if not heads:
        return r"[\s\S]*"
    rest = {head: tuple(each[1:] for each in openers if each[0] == head) for head in heads}
    options = [f"[^{''.join(map(re.escape, heads))}][\\s\\S]*"]
    options += [f"{re.escape(head)}{_unlike(each)}" for head, each in rest.items() if all(each)]
    return f"({'|'.join(options)})?"


def _text(node: Node) -> str | None:
    """The regular expression of free text, or of a string without quotes."""
    match node:
        case Free(name):
            return f"({_FREE[name]})"
        case Repeat(Free(name), _, 1):
            return f"({_FREE[name]})?"
        case Raw(regex):
            return f"({regex})"
        case _:
            return None


def _bar(barred: str | None) -> str:
    """The condition that free text does not begin so."""
    return "" if barred is None else f" & ~{delimited(f'({barred})(?s:.*)')}"


def _any(texts: Sequence[str]) -> str:
    return "|".join(map(re.escape, texts))


def _also(regex: str | None) -> str:
    return "" if regex is None else f" & {delimited(regex)}"


def _not(regex: str) -> str:
    return f" & ~{delimited(regex)}" if regex else ""


def _all(conditions: Sequence[str]) -> str:
    result = conditions[0]
    for condition in conditions[1:]:
        result = f"and({result}, {condition})"
    return result
