"""Faults that only the whole of a finished turn shows: of other speakers, loops, other formats.

Nearly all of it is looked for in turns that have a fault already. In the others there are three
cheap signs: the turn begins with a role, a special token stands right before a call, or the name
of an offered tool stands in a turn that makes no call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache, lru_cache

from ..formats.nodes import Literal, walk
from ..formats.reader import SPACE
from ..formats.wire_format import GRAMMARS, WireFormat, format_names
from ..tools.toolset import Toolset
from .bare import ends_bare, is_bare
from .faults import Found, is_response
from .turn import Call, Fault, FaultKind
from .vocabulary import RESPONSE, ROLE, SENTINEL

Read = Callable[[str, WireFormat, Toolset], tuple[Sequence[Call], str]]
"""The calls and the text of a turn that is sound in a format; no calls if it is not."""

# A list of words may begin with "user": of a header, somebody's words or structure follow.
OPENING_ROLE = re.compile(
    r"(?:[^\w<{\[]*\n)?[ \t]*(user|assistant)[ \t]*\n"
    r"(?=\s*(?:(?:user|assistant)\b|[<{\[]|\S+ \S+ \S+))"
)
_ROLE_LINE = re.compile(rf"(?:^|[\n>])[ \t]*({ROLE})[ \t]*(?=\n|$)")
_ANSWER = re.compile(rf"(?:^|\n)({RESPONSE}[^\n]*)")
_LEAK = re.compile(rf"(?:{SENTINEL})\s*\Z")
_TAG = re.compile(r"<[^<>\n]{1,60}>")
_WORD = re.compile(r"\s*(\w{1,20})\s*\Z")
_SPELLED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_TAIL, _PERIOD, _TIMES, _LEAST = 2000, 200, 6, 30
_ENDLESS = 1000
"""What goes round for so many characters, nobody has asked for."""
_AGAIN = _LEAST * (_TIMES - 1) // _TIMES
"""How much of what goes round comes again one period later, at least."""
_NEAR = 0.75


def faults_of_turn(
    raw: str,
    text: str,
    calls: Sequence[Call],
    faults: Sequence[Fault],
    wire_format: WireFormat,
    toolset: Toolset,
    read: Read,
    thought: bool = False,
    cut: bool = False,
) -> Iterator[Found]:
    """What else is wrong with a finished turn.

    Args:
        raw: the turn, control tokens spelled out; the spans are of it.
        text: its prose.
        calls: its sound calls.
        faults: what is known to be wrong with it.
        read: reads a text as a turn of its own.
        thought: control tokens in its reasoning are words.
        cut: a budget ended it.
    """
    known: set[FaultKind] = {fault.kind for fault in faults}
    if "run_on" not in known and (role := OPENING_ROLE.match(raw)):
        message = f"{role[1]!r}: the turn opens with the header of a speaker"
        yield Found("run_on", *role.span(1), message, "turn")
        known.add("run_on")
    if calls and text:
        start = raw.find(wire_format.opener, 0, calls[0].span[0] + 1) if wire_format.opener else -1
        head = raw[: start if start >= 0 else calls[0].span[0]]
        leak = _LEAK.search(head, max(0, len(head) - 64))
        if leak and leak[0].strip() not in wire_format.controls:
            message = f"{leak[0].strip()!r} is no token of the format"
            yield Found("foreign_token", *leak.span(), message, "around")
    if calls and text and not faults:
        yield from _said(raw, text, wire_format, toolset)
    announcing = wire_format.announcing
    if announcing and not (calls or faults) and text.startswith("{") and announcing in raw:
        start = raw.find(text)
        message = "arguments in a message that names no tool"
        yield Found("untagged_call", start, start + len(text), message, "around")
    if faults:
        yield from _after(raw, calls, faults, known, wire_format)
    if faults or not calls:
        yield from _loop(raw, cut or bool(faults))
    if faults or thought:
        yield from _in_reasoning(raw, calls, faults, wire_format, toolset, read, thought)
    if not calls and toolset.any_named(raw):
        yield from _attempts(raw, text, faults, wire_format, toolset, read)


def _said(raw: str, text: str, wire_format: WireFormat, toolset: Toolset) -> Iterator[Found]:
    """A call that was said beside others: a message that lost its recipient."""
    torn = _torn(wire_format, toolset.names)
    if torn is not None and torn.match(text):
        start = max(raw.find(text), 0)
        message = "a call in a message that names no tool"
        yield Found("untagged_call", start, start + len(text), message, "around")


def _after(
    raw: str,
    calls: Sequence[Call],
    faults: Sequence[Fault],
    known: set[FaultKind],
    wire_format: WireFormat,
) -> Iterator[Found]:
    """Other speakers, behind the first fault or the last sound call."""
    start = min([fault.span[0] for fault in faults] + [call.span[1] for call in calls[-1:]])
    if "run_on" not in known and (role := _ROLE_LINE.search(raw, start)):
        message = f"{role[1]!r}: the turn goes on as another speaker's"
        yield Found("run_on", *role.span(1), message, "turn")
    if "fabricated_response" in known:
        return
    framed = _framed(wire_format).search(raw, start)
    if answer := framed or _ANSWER.search(raw, start):
        group = 0 if answer is framed else 1
        message = "the model writes what only a tool may answer"
        yield Found("fabricated_response", *answer.span(group), message, "turn")


@cache
def _framed(wire_format: WireFormat) -> re.Pattern[str]:
    """The control tokens that frame what a tool answers."""
    controls = [re.escape(control) for control in wire_format.framing if is_response(control)]
    return re.compile("|".join(controls) or "(?!)")


def _in_reasoning(
    raw: str,
    calls: Sequence[Call],
    faults: Sequence[Fault],
    wire_format: WireFormat,
    toolset: Toolset,
    read: Read,
    thought: bool,
) -> Iterator[Found]:
    """A complete call between the reasoning tags of a turn that makes none."""
    stuck = [fault for fault in faults if fault.where == "turn" and fault.kind == "stray_control"]
    opener, closer = wire_format.opener, wire_format.closer
    start = stuck[0].span[0] if stuck else raw.find(opener) if thought else -1
    if calls or not opener or start < 0 or not raw.startswith(opener, start):
        return
    end = (
        raw.find(closer, start) + len(closer)
        if closer
        else raw.find(wire_format.reasoning_closer, start)
    )
    if end > start and read(raw[start:end], wire_format, toolset)[0]:
        yield Found("call_in_reasoning", start, end, "a call inside the reasoning", "turn")


def goes_round(raw: str) -> bool:
    """Whether a reply that is whole is a loop."""
    return any(_loop(raw, broken=False))


def _loop(raw: str, broken: bool) -> Iterator[Found]:
    """The end of the turn goes round; in one that is not `broken` off or faulty, for most of it,
    and far longer than anyone would ask for."""
    tail = raw[-_TAIL:][::-1]
    if tail.find(tail[:_AGAIN], 1, _PERIOD + _AGAIN) < 0:
        return
    best = _period(tail[: _PERIOD * _TIMES])
    if best and re.search(r"\w", tail[:best]):
        run = best
        while run < len(tail) and tail[run] == tail[run - best]:
            run += 1
        endless = run >= max(2 * _TIMES * best, _ENDLESS) and run >= min(len(raw) // 2, len(tail))
        if run >= max(_TIMES * best, _LEAST) and (broken or endless):
            unit = raw[len(raw) - best :]
            message = f"it goes round: {unit[:40]!r}"
            yield Found("repetition_loop", len(raw) - run, len(raw), message, "turn")


def _period(text: str) -> int:
    """The smallest period of which a prefix of `text` has the most; 0 if none repeats."""
    borders = [0] * len(text)
    for place in range(1, len(text)):
        size = borders[place - 1]
        while size and text[place] != text[size]:
            size = borders[size - 1]
        borders[place] = size + (text[place] == text[size])
        period = place + 1 - borders[place]
        if period <= _PERIOD and place + 1 >= max(_TIMES * period, _LEAST):
            return period
    return 0


def _attempts(
    raw: str,
    text: str,
    faults: Sequence[Fault],
    wire_format: WireFormat,
    toolset: Toolset,
    read: Read,
) -> Iterator[Found]:
    """A call that failed for what is around it: in another format, or its opener is lost."""
    for other in _candidates(raw, wire_format, toolset, bool(faults)):
        if read(raw, other, toolset)[0]:
            message = f"a call as {other.name} writes it"
            yield Found("foreign_format", 0, len(raw), message, "around")
            return
    torn = _torn(wire_format, toolset.names)
    if not faults and torn is not None and torn.match(raw):
        message = "the turn is a call that its parser cannot follow"
        yield Found("untagged_call", 0, len(raw), message, "around")
        return
    if not faults and ends_bare(text, toolset):
        message = "a call without its control tokens ends the reply"
        yield Found("untagged_call", raw.find(text), len(raw), message, "around")
        return
    if not faults and (is_bare(text, toolset) or _headed(toolset.names).match(text)):
        message = "a call, or what is left of one, without its control tokens"
        yield Found("untagged_call", raw.find(text), len(raw), message, "around")
        return
    made_of = _quoted(toolset.names).search(raw)
    if made_of is None:
        return
    known = {fault.kind for fault in faults}
    if known and "orphan_closer" not in known:
        return
    if tag := _drifted(raw[: made_of.start()], wire_format):
        message = f"{tag[0]!r} for a control token of the format"
        yield Found("drifted_tag", *tag.span(), message, "around")
    elif markup := _body_start(raw, wire_format):
        word = _WORD.match(raw[:markup])
        if word and not re.fullmatch(ROLE, word[1]):
            message = f"{word[1]!r} where {wire_format.opener} belongs"
            yield Found("opener_as_word", *word.span(1), message, "around")


@lru_cache(maxsize=256)
def _headed(names: tuple[str, ...]) -> re.Pattern[str]:
    """A turn in which a tool's name stands on a line of its own, as what its call is headed with,
    and signs and a word of JSON behind it, perhaps behind a call without arguments; signs of JSON
    are also what it ends in."""
    named = "|".join(map(re.escape, names))
    head = rf"(?:{named})[ \t]*\n"
    return re.compile(
        rf"(?:[\s\S]*>>>)?\s*{head}(?:\W*{head})?\s*(?!\w)[\s{{}}\":,>]+\w+\s*[\"':{{}}>]"
        rf"[\s\S]*[{{}}\]\",:>]\s*\Z"
    )


@lru_cache(maxsize=256)
def _quoted(names: tuple[str, ...]) -> re.Pattern[str]:
    """The name of a tool between the signs that a call has around it."""
    return re.compile(rf"[\"'=:. >](?:{'|'.join(map(re.escape, names))})[\"'>:({{\s]")


@lru_cache(maxsize=256)
def _torn(wire_format: WireFormat, names: tuple[str, ...]) -> re.Pattern[str] | None:
    """A whole turn that begins and ends as a call does, and is none: where no token opens one, it
    would pass for prose. In front of the tool's name stand signs, and the format's own words."""
    named = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    if wire_format.reader.barred is None:
        own = [n for n in walk(wire_format.rules["call"]) if isinstance(n, Literal)]
        if wire_format.opener or not own or not own[-1].text.startswith("</"):
            return None
        return re.compile(rf"[\s\S]*\b(?:{named})\b[\s\S]*{re.escape(own[-1].text)}\s*\Z")
    texts = [n.text for n in wire_format._below("calls") if isinstance(n, Literal)]
    words = "|".join(sorted({*re.findall(r"\w+", " ".join(texts))})) or "(?!)"
    ends = [
        re.escape(node.text)
        for rule in ("call", "calls")
        for node in walk(wire_format.rules[rule])
        if isinstance(node, Literal) and not re.search(r"\w", node.text)
    ]
    signs = r"[\s{}\[\]()\"',:;]*"
    return re.compile(
        rf"{signs}(?:(?:{words}){signs})*(?:{named})"
        rf"(?:\"\s*[,:}}]|\s*[(\[]|\w+=)[\s\S]*{ends[-1]}\s*\Z"
        rf"|\s*\[\s*(?:{named})\s*(?:[)'\"={{]|[^\w\]]{{0,3}}\w+=)[\s\S]*{ends[-1]}\s*\Z"
    )


def _body_start(raw: str, wire_format: WireFormat) -> int:
    """Where the inside of a call begins that is written with markup; 0 if nowhere behind a word."""
    places = [raw.find(text) for text in wire_format.markup if text.startswith("<")]
    return min((place for place in places if place > 0), default=0)


def _drifted(text: str, wire_format: WireFormat) -> re.Match[str] | None:
    """The first tag that is nearly, but not quite, an opener of the format."""
    controls = set(wire_format.controls)
    wanted = [_squashed(wire_format.opener)] if wire_format.opener else []
    for tag in _TAG.finditer(text):
        if tag[0] in controls or any(tag[0].startswith(m) for m in wire_format.markup):
            continue
        own = _squashed(tag[0])
        if any(SequenceMatcher(None, own, other).ratio() >= _NEAR for other in wanted):
            return tag
    return None


def _squashed(tag: str) -> str:
    return re.sub(r"\W|_", "", tag).lower()


def _candidates(
    raw: str, wire_format: WireFormat, toolset: Toolset, faulty: bool
) -> Iterator[WireFormat]:
    """The other formats in whose spelling the turn has all that a call needs.

    Where the turn has a fault already, that must be a spelling that its own format does not have.
    Where it has none, all are looked at: some formats share their spelling, and some spell a call
    with little but the tool's name.
    """
    own = _signs().get(wire_format.name, frozenset()) if faulty else frozenset()
    seen = {sign for sign in _every_sign() - own if sign in raw}
    bare = not faulty and _bare(toolset.names).search(raw)
    for name, signs in _signs().items() if seen or bare else ():
        if name != wire_format.name and (bare or not signs.isdisjoint(seen)):
            other = WireFormat.load(name)
            if other.may_call(raw):
                yield other


@lru_cache(maxsize=256)
def _bare(names: tuple[str, ...]) -> re.Pattern[str]:
    """The name of a tool, as of a function or on a line of its own, at the beginning of a turn or
    of a message in it."""
    return re.compile(rf"(?:\A\s*\[?\s*|>>>)(?:{'|'.join(map(re.escape, names))})\s*[(\n]")


@cache
def _every_sign() -> frozenset[str]:
    return frozenset().union(*_signs().values())


@cache
def _signs() -> dict[str, frozenset[str]]:
    """What each format spells that is no word or punctuation, from the text of its grammar."""
    signs = {}
    for name in format_names():
        lines = (GRAMMARS / f"{name}.lark").read_text("utf-8").splitlines()
        code = "\n".join(line for line in lines if line[:2] != "//" and line[:1] != "%")
        texts = [
            found[1].replace('\\"', '"') for found in re.finditer(r'"((?:[^"\\]|\\.)*)"', code)
        ]
        signs[name] = frozenset(t for t in texts if len(t.strip(SPACE)) > 5 and not t.isalnum())
    return signs
