"""The shortest completion of an unfinished turn.

A turn must end closed within its token budget, so the guard has to know, for any legal prefix,
what is the least that still has to follow. The prefix is walked top-down through the request's
rules with an explicit stack, all alternatives side by side; where the text ends, what is left on a
stack is completed by the shortest text of each node.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import inf
from operator import itemgetter
from string import ascii_lowercase
from typing import TypeAlias

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
    Region,
    Repeat,
    Rules,
    Scalar,
    Seq,
    Strings,
    Until,
    walk,
)
from ..formats.reader import LEADING_SPACE
from .automaton import CHARACTER_ENDS, shortest_end, shortest_json_end
from .engine import shortest_suffix
from .mask_grammar import terminal_grammar

Pieces: TypeAlias = tuple[bytes | Control, ...]
"""Bytes to spell, and control tokens to emit as one token, in order."""

_MADE_OF_OTHERS = (Seq, Alt, Repeat, Members, Ref)
_ON_ITS_WAY = 2  # bytes after a match of a terminal that may lead to a longer one, as in `1e+`
_PUNCTUATION = b" \t\r\n:,;="
_LONGEST = 20_000  # bytes of what is repeated: no turn of thousands of tokens is legal at the least
_CONTROL_COST = 3  # a token, and so are about three bytes of text


@dataclass(frozen=True, slots=True)
class _Rest:
    """What may follow inside `Members` after those already seen."""

    node: Members
    seen: frozenset[int]
    count: int


@dataclass(frozen=True, slots=True)
class _Leave:
    """The end of a region of the turn."""

    region: Region


_Least: TypeAlias = "tuple[float, Sequence[Node]]"
"""What the shortest text of a node costs (infinite: it has none), and the nodes that it is made of:
literals, tokens and terminals of themselves."""
_Stack: TypeAlias = "tuple[Node | _Rest | _Leave, _Stack] | None"
Frontier: TypeAlias = tuple[tuple[int, _Stack], ...]
"""Where a text stands in a grammar: what is still to come, from the start of the last terminal."""


class Completer:
    """Finds shortest completions under one request's grammar.

    `controls` are the format's control tokens, `tokens` those of them that are one token; the
    others are spelled. `spaced` writes a space after commas and colons: a byte more, but most
    vocabularies have tokens for what models usually write, and then it is fewer tokens.

    Attributes:
        longest_control: how many bytes the longest control token has, spelled.
    """

    def __init__(
        self,
        rules: Rules,
        start: str,
        controls: Sequence[str],
        tokens: Container[str] = (),
        spaced: bool = False,
    ) -> None:
        self._tokens = tokens
        self._spaced = spaced
        self._rules = rules
        self._start = start
        self._controls = tuple(controls)
        self._spelled = [control.encode() for control in controls]
        self.longest_control = max(map(len, self._spelled))
        self._begun = {c[:size] for c in self._spelled for size in range(1, len(c) + 1)}
        stop = "|".join(map(re.escape, controls))
        # Free text as bytes, up to the next control token.
        self._free = re.compile(rf"(?:(?!{stop})[\s\S])+".encode())
        self._patterns: dict[Node, re.Pattern[bytes]] = {}
        self._known: dict[int, _Least] = {}
        self._texts: dict[int, Pieces] = {}
        self._settle()

    @property
    def beginning(self) -> Frontier:
        """The frontier of the empty text."""
        return ((0, (Ref(self._start), None)),)

    def advance(self, frontier: Frontier, text: bytes, walked: int = 0) -> Frontier:
        """Where `text` stands, walked on from where a prefix of it stood; empty: nowhere legal.

        The text holds control tokens spelled out.

        Args:
            walked: how long that prefix was. Free text is not searched for control tokens again,
                and a value that can be nothing else is not read again for every piece of it: where
                nothing has come that might end it, `text` is taken to be legal.
        """
        size = len(text)
        reached: list[tuple[int, _Stack]] = []
        agenda = list(frontier)
        unread = walked - self.longest_control + 1
        under_way = {(position, id(stack)) for position, stack in frontier}
        # Alternatives that match the same text meet again on the very same rest of a stack.
        seen: dict[tuple[int, int], _Stack] = {}
        while agenda:
            position, stack = agenda.pop()
            stack = _entered(stack)
            if (position, id(stack)) in seen:
                continue
            seen[position, id(stack)] = stack
            if position == size:
                reached.append((position, stack))
                continue
            if stack is None:
                continue
            node, rest = stack
            assert not isinstance(node, _Leave)
            match node:
                case Literal(spelled) | Control(spelled):
                    data = spelled.encode()
                    if text.startswith(data, position):
                        agenda.append((position + len(data), rest))
                    elif data.startswith(text[position:]):
                        reached.append((position, stack))
                case Pattern() | Scalar() | Free() | Raw() | Until() | Key():
                    begun = (position, id(stack)) in under_way
                    if begun and len(frontier) == 1 and self._goes_on(node, text, position, walked):
                        reached.append((position, stack))
                        continue
                    begun = begun and isinstance(node, Free)
                    start = max(position, unread) if begun else position
                    found = self._pattern(node).match(text, start)
                    matched = found.end() if found else start
                    if position < matched < size and self._is(node, text[position:matched]):
                        agenda.append((matched, rest))
                    if isinstance(node, Raw) and self._suffix(node, b"") == b"":
                        agenda.append((position, rest))  # it may be empty
                    # The text may also end inside the terminal; `1` matches, `1.` is on its way.
                    unfinished = matched == position or size - matched <= _ON_ITS_WAY
                    if unfinished and (
                        self._suffix(node, text[position:]) is not None
                        or any(self._begun_controls(node, text, position))
                    ):
                        reached.append((position, stack))
                case _:
                    agenda += [(position, following) for following in self._expand(node, rest)]
        return tuple(reached)

    def complete(self, frontier: Frontier, text: bytes) -> Pieces | None:
        """What to append to `text` so that the turn may end, `frontier` being where it stands.

        Shortest means the fewest bytes, a control token counted as three of them. None if the text
        is no legal prefix.
        """
        best: Pieces | None = None
        for position, stack in frontier:
            pieces: Pieces = ()
            if position < len(text):
                assert stack is not None
                node, stack = stack
                tail = text[position:]
                if isinstance(node, Literal | Control):
                    pieces = (node.text.encode()[len(tail) :],)
                else:
                    assert isinstance(node, Pattern | Scalar | Free | Raw | Until | Key)
                    for start in self._begun_controls(node, text, position):
                        begun = self.advance(((start, stack),), text)
                        best = _shorter(best, self.complete(begun, text))
                    suffix = self._suffix(node, tail)
                    if suffix is None:
                        continue
                    pieces = (suffix,)
            best = _shorter(best, self._finish(pieces, stack))
        return best

    def shortest(self, rule: str) -> Pieces | None:
        """The shortest text of a rule; None if it has none."""
        cost, made_of = self._least(self._rules[rule])
        return None if cost == inf else self._text(made_of)

    def region(self, frontier: Frontier) -> Region:
        """The region that all of a frontier is in; `text` where it is in several."""
        found = {_region(stack) for _, stack in frontier}
        return found.pop() if len(found) == 1 else "text"

    def inside_value(self, frontier: Frontier, text: bytes) -> bool:
        """Whether `text` ends inside a value, and not in the punctuation around values."""
        return any(
            position < len(text)
            and stack is not None
            and isinstance(stack[0], Pattern | Scalar | Raw | Until)
            and bool(text[position:].strip(_PUNCTUATION))
            for position, stack in frontier
        )

    def in_free_text(self, frontier: Frontier, text: bytes) -> bool:
        """Whether `text` ends in free text and can be read in no other way, and whether no more is
        asked of what follows there than to contain no control token."""
        return bool(frontier) and all(
            stack is not None
            and isinstance(stack[0], Free)
            and self._is_under_way(stack[0], text[position:])
            for position, stack in frontier
        )

    def begins_control(self, text: bytes) -> bool:
        """Whether a control token ends where `text` does, or may have begun there."""
        tail = text[-self.longest_control :]
        return any(tail[start:] in self._begun for start in range(len(tail)))

    def has_control(self, text: bytes) -> bool:
        """Whether a control token is spelled in `text`."""
        return not self._free.fullmatch(text)

    def _is_under_way(self, node: Free, text: bytes) -> bool:
        """Whether free text is not blank, nor what it may not begin as."""
        barred = node.barred
        return bool(text.strip()) and (
            barred is None or self._suffix(Pattern(barred), text) is None
        )

    def _goes_on(self, node: Node, text: bytes, position: int, walked: int) -> bool:
        """Whether a terminal has not ended in what has come behind `walked`, as can be seen there.

        Args:
            position: where it begins.
        """
        match node:
            case Free():
                return not self.has_control(
                    text[max(position, walked - self.longest_control + 1) :]
                )
            case Raw(stop=stop) | Until(stop=stop):
                end = stop.encode()
                return text.find(end, max(position, walked - len(end))) < 0
            case Scalar() | Pattern():
                quote = text[position : position + 1]
                return (
                    quote in _QUOTED
                    and (isinstance(node, Scalar) or self._is_quoted(node, quote))
                    and _is_unclosed(text, quote, position + 1, walked)
                )
            case _:
                return False

    def _is_quoted(self, node: Pattern, quote: bytes) -> bool:
        """Whether a terminal is a string between quotes, with escapes."""
        own = node.regex.encode()
        quoted = len(own) > 1 and own.startswith(quote) and own.endswith(quote)
        return quoted and bool(self._pattern(node).fullmatch(quote + b"\\" + quote + quote))

    def _begun_controls(self, node: Node, text: bytes, position: int) -> Iterator[int]:
        """Where a spelled-out control token may have begun at the end of free text."""
        if not isinstance(node, Free | Raw):
            return
        for start in range(max(position + 1, len(text) - self.longest_control + 1), len(text)):
            if text[start:] in self._begun and self._suffix(node, text[position:start]) == b"":
                yield start

    def _expand(self, node: Node | _Rest, rest: _Stack) -> Iterator[_Stack]:
        match node:
            case Ref(rule):
                region = _REGIONS.get(rule)
                yield (self._rules[rule], rest if region is None else (_Leave(region), rest))
            case Seq(items):
                for item in reversed(items):
                    rest = (item, rest)
                yield rest
            case Alt(options):
                for option in options:
                    yield (option, rest)
            case Repeat(item, low, high):
                if low == 0:
                    yield rest
                if high is None or high > 0:
                    fewer = Repeat(item, max(low - 1, 0), None if high is None else high - 1)
                    yield (item, (fewer, rest))
            case Members():
                yield (_Rest(node, frozenset(), 0), rest)
            case _Rest(members, seen, count):
                yield from self._further(members, seen, count, rest)

    def _further(
        self, node: Members, seen: frozenset[int], count: int, rest: _Stack
    ) -> Iterator[_Stack]:
        missing = [i for i, m in enumerate(node.members) if m.required and i not in seen]
        if not missing and count >= max(node.low, 1):
            yield rest
        options: list[tuple[Node, frozenset[int]]] = [
            (member.node, seen | {i}) for i, member in enumerate(node.members) if i not in seen
        ]
        if node.extra is not None:
            options.append((node.extra, seen))
        for member, now in options:
            following: _Stack = (member, (_Rest(node, now, count + 1), rest))
            yield (node.separator, following) if count else following

    def _finish(self, pieces: Pieces, stack: _Stack) -> Pieces | None:
        """`pieces`, and the shortest text of everything on the stack."""
        parts: list[bytes | Control] = list(pieces)
        while stack is not None:
            node, stack = stack
            if not isinstance(node, _Leave):
                cost, made_of = self._least(node)
                if cost == inf:
                    return None
                parts += self._text(made_of)
        return _joined(parts)

    def _text(self, made_of: Sequence[Node]) -> Pieces:
        """The shortest texts of some nodes, one after the other."""
        parts: list[bytes | Control] = []
        for node in made_of:
            parts += self._texts.get(id(node)) or self._text_of(node)
        return _joined(parts)

    def _text_of(self, node: Node) -> Pieces:
        if isinstance(node, _MADE_OF_OTHERS):
            text = self._text(self._least(node)[1])
        else:
            text = (self._piece(node) or b"",)
        if id(node) in self._known:  # not made while walking
            self._texts[id(node)] = text
        return text

    def _piece(self, node: Node) -> bytes | Control | None:
        """The shortest text of a node with no others in it; None if it has none."""
        match node:
            case Literal(text):
                return text.encode()
            case Control(text):
                return node if text in self._tokens else text.encode()
            case _:
                return self._suffix(node, b"")

    def _least(self, node: Node | _Rest) -> _Least:
        # What is not known was made while walking, e.g. a counter, from nodes that are.
        return self._known.get(id(node)) or self._found(node)

    def _cost_of(self, node: Node) -> float:
        return self._known[id(node)][0]

    def _settle(self) -> None:
        """Finds the shortest text of each node of the rules: a fixed point, since rules may refer
        to themselves."""
        known = self._known
        users = defaultdict[str, set[str]](set)
        inside = defaultdict[str, list[Node]](list)
        pieces: dict[Node, bytes | Control | None] = {}
        for name, rule in self._rules.items():
            for node in walk(rule):
                if isinstance(node, _MADE_OF_OTHERS):
                    known[id(node)] = inf, ()
                    inside[name].append(node)
                    if isinstance(node, Ref):
                        users[node.rule].add(name)
                elif id(node) not in known:
                    if node not in pieces:
                        pieces[node] = self._piece(node)
                    piece = pieces[node]
                    known[id(node)] = inf if piece is None else _price(piece), (node,)
        # What refers to others mostly stands before them.
        agenda = dict.fromkeys(self._rules)
        while agenda:
            name, _ = agenda.popitem()
            whole = id(self._rules[name])
            before, _ = known[whole]
            for node in reversed(inside[name]):
                found = self._found(node)
                # Nothing but what is cheaper: no text may become a part of itself.
                if found[0] < known[id(node)][0]:
                    known[id(node)] = found
            if known[whole][0] < before:
                agenda |= dict.fromkeys(users[name])

    def _found(self, node: Node | _Rest) -> _Least:
        """The shortest text of a node, from what that of the nodes in it costs."""
        made_of: Sequence[Node]
        match node:
            case Seq(items):
                made_of = items
            case Ref(rule):
                made_of = (self._rules[rule],)
            case Alt(options):
                if not options:
                    return inf, ()
                made_of = (min(options, key=self._cost_of),)
            case Repeat(item, low):
                total = low * self._cost_of(item) if low else 0
                if total > _LONGEST:
                    return inf, ()
                made_of = (item,) * low if total else ()
            case Members():
                return self._found(_Rest(node, frozenset(), 0))
            case _Rest(members, seen, count):
                lacking = _lacking(members, seen, count, self._cost_of)
                if lacking is None:
                    return inf, ()
                made_of = lacking
            case _:
                raise TypeError(f"{node!r} has no place in a request's grammar")
        return sum([self._known[id(part)][0] for part in made_of]), made_of

    def endless(self) -> str:
        """The rule without any text short enough to be found, not for want of another rule's; empty
        if there is none."""
        without = {name for name, rule in self._rules.items() if self._cost_of(rule) == inf}
        for name in without:
            needs = {node.rule for node in walk(self._rules[name]) if isinstance(node, Ref)}
            if not without & needs:
                return name
        return min(without, default="")

    @cached_property
    def longest_step(self) -> Pieces:
        """The costliest shortest text of any node: how much one token can add to a completion."""
        finite = (least for least in self._known.values() if least[0] < inf)
        return self._text(max(finite, key=itemgetter(0))[1])

    def _pattern(self, node: Node) -> re.Pattern[bytes]:
        if node not in self._patterns:
            match node:
                case Free("BLANK"):
                    self._patterns[node] = _BLANK
                case Free():
                    self._patterns[node] = self._free
                case Scalar():
                    self._patterns[node] = _SCALAR
                case Raw(_, _, stop):
                    self._patterns[node] = re.compile(rf"(?:(?!{re.escape(stop)})[\s\S])+".encode())
                case Until(_, stop):
                    end = closing(stop).end if node.lined else re.escape(stop)
                    self._patterns[node] = re.compile(rf"(?:(?!{end})[\s\S])*{end}".encode())
                case Key():
                    self._patterns[node] = re.compile(node.regex.encode())
                case Pattern(regex):
                    self._patterns[node] = re.compile(_ANY_BUT.sub(_CHARACTER, regex).encode())
        return self._patterns[node]

    def _is(self, node: Node, text: bytes) -> bool:
        """Whether a text of a terminal's shape is one: another alternative may have let it pass."""
        match node:
            case Key():
                return text.decode("utf-8", "replace") not in node.spelled
            case Scalar() | Pattern(also=str()) | Raw(also=str()) | Until(also=str()):
                return self._suffix(node, text) == b""
            case Raw() | Until():
                return not _took(node, text)
            case _:
                return True

    def _suffix(self, node: Node, prefix: bytes) -> bytes | None:
        """The fewest bytes that complete a terminal."""
        match node:
            case Pattern(least=str() as least) if not prefix:
                return least.encode()
            case Scalar(_, Strings() as strings):
                found = shortest_json_end(strings, prefix)
                if found is not None:
                    return found
            case Pattern(strings=Strings() as strings, quote=quote):
                found = _ended(strings, prefix, quote)
                if found is not None:
                    return found
            case Raw(regex, also, stop, strings=strings):
                if stop.encode() in prefix or _took(node, prefix):
                    return None
                return self._suffix(Pattern(regex, also, strings=strings), prefix)
            case Until():
                return self._until(node, prefix)
            case Key() if not prefix and (text := self._shortest_key(node)):
                return text
        suffix = shortest_suffix(terminal_grammar(node, self._controls), prefix)
        if self._spaced and suffix and suffix[-1:] in b",:" and isinstance(node, Pattern):
            spaced = suffix + b" "
            return spaced if self._pattern(node).fullmatch(prefix + spaced) else suffix
        return suffix

    def _shortest_key(self, node: Key) -> bytes | None:
        """A key as short as can be; None if none of those that are tried is one."""
        for name in ("", *ascii_lowercase):
            text = node.spell(name).encode()
            if self._pattern(node).fullmatch(text) and self._is(node, text):
                return text
        return None

    def _until(self, node: Until, prefix: bytes) -> bytes | None:
        """The shortest end of a string that runs up to its markup, which may have begun."""
        stop = node.stop.encode()
        if _took(node, prefix):
            return None
        if found := self._pattern(node).match(prefix):
            return b"" if found.end() == len(prefix) else None
        if stop in prefix:  # a word
            return shortest_suffix(terminal_grammar(node, self._controls), prefix)
        content = Pattern(node.regex, node.also, strings=node.strings)
        for begun in range(min(len(stop) - 1, len(prefix)), 0, -1):
            if prefix.endswith(stop[:begun]) and self._suffix(content, prefix[:-begun]) == b"":
                return stop[begun:]
        suffix = self._suffix(content, prefix)
        return None if suffix is None else suffix + stop


def _ended(strings: Strings, begun: bytes, quote: str) -> bytes | None:
    """The shortest end of a string of which `begun` is there, quotes included; None if there is
    none, or it takes the engine to know."""
    if begun and quote == '"':
        return shortest_json_end(strings, begun)
    for tail in (b"", *CHARACTER_ENDS):
        with suppress(UnicodeDecodeError):
            end = _ended_text(strings, (begun + tail).decode(), quote)
            return None if end is None else tail + end.encode()
    return None


def _ended_text(strings: Strings, begun: str, quote: str) -> str | None:
    """The same for whole characters."""
    if not quote:
        # A line end in front may not count, nor one behind: no more is made of it.
        return shortest_end(strings, begun.strip("\n"))
    if begun and (not begun.startswith(quote) or "\\" in begun or quote in begun[1:]):
        return None
    found = shortest_end(strings, begun[1:])
    return None if found is None else f"{'' if begun else quote}{found}{quote}"


def _took(node: Raw | Until, text: bytes) -> bool:
    """Whether a string without quotes took in what is no part of it."""
    if node.taken is None:
        return False
    begins = text.startswith(tuple(opener.encode() for opener in node.taken.openers))
    if not begins and not any(mark.encode() in text for mark in node.taken.marks):
        return False
    return re.fullmatch(node.taken.regex.encode(), text) is not None


def _lacking(
    node: Members, seen: frozenset[int], count: int, cost: Callable[[Node], float]
) -> Sequence[Node] | None:
    """The required members still missing, and as many of the cheapest others as `low` asks."""
    missing = [member for i, member in enumerate(node.members) if i not in seen]
    needed = [member.node for member in missing if member.required]
    lacking = max(node.low, 1) - count - len(needed)
    if lacking > 0:
        spare = [member.node for member in missing if not member.required]
        spare += [] if node.extra is None else [node.extra] * lacking
        if len(spare) < lacking:
            return None
        needed += sorted(spare, key=cost)[:lacking]
    parts: list[Node] = []
    for each in needed:
        parts += (node.separator, each) if parts or count else (each,)
    return parts


_REGIONS: dict[str, Region] = {
    "call": "call",
    "reasoning": "reasoning",
    "thoughts": "reasoning",
}


def _entered(stack: _Stack) -> _Stack:
    """What is left of a stack outside the regions that have ended."""
    while stack is not None and isinstance(stack[0], _Leave):
        stack = stack[1]
    return stack


def _region(stack: _Stack) -> Region:
    if stack is not None and isinstance(stack[0], Ref) and stack[0].rule in _REGIONS:
        return _REGIONS[stack[0].rule]  # about to begin, and nothing else can
    while stack is not None:
        node, stack = stack
        if isinstance(node, _Leave):
            return node.region
    return "text"


_BLANK = re.compile(rb"[ \t\r\n]{1,%d}" % LEADING_SPACE)
_ANY_BUT = re.compile(r"\[\^((?:\\.|[^\]\\])*)\]")
_CHARACTER = r"(?:[^\1\\x80-\\xbf][\\x80-\\xbf]*)"  # in bytes: what a bound counts is characters
_QUOTED = {quote: re.compile(rb"(?:[^\\%b]+|\\[\s\S])*" % quote) for quote in (b'"', b"'")}


def _is_unclosed(text: bytes, quote: bytes, start: int, walked: int) -> bool:
    """Whether a string whose content begins at `start` goes on to the end of the text; it did to
    `walked`, or a quotation mark ended it there."""
    size = walked - text.endswith(quote, start, walked)
    if text.endswith(b"\\", start, size):  # what it escapes may come behind
        size = start + len(text[start:size].rstrip(b"\\"))
    found = _QUOTED[quote].match(text, max(start, size))
    return found is not None and text[found.end() :] in (b"", b"\\")


_SCALAR = re.compile(rb'"(?:[^"\\]|\\[\s\S])*"|[-+.0-9eE]+')


def _price(piece: bytes | Control) -> int:
    return len(piece) if isinstance(piece, bytes) else _CONTROL_COST


def _cost(pieces: Pieces) -> int:
    return sum(map(_price, pieces))


def _shorter(one: Pieces | None, other: Pieces | None) -> Pieces | None:
    if one is None or other is None:
        return other if one is None else one
    return other if _cost(other) < _cost(one) else one


def _joined(parts: Sequence[bytes | Control]) -> Pieces:
    """`parts` with neighbouring bytes put together."""
    result: list[bytes | Control] = []
    for part in parts:
        if isinstance(part, bytes) and result and isinstance(result[-1], bytes):
            result[-1] += part
        elif part != b"":
            result.append(part)
    return tuple(result)
