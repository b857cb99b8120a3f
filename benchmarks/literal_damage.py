"""Literals damaged everywhere in a call, in every format: none may be repaired into other calls.

    python -m benchmarks.literal_damage [--turns 20000] [--seed 0] [--format NAME] [--show 20]

A call is rendered with stand-ins for its strings, so that damage meets quotes, brackets, commas and
names, but never a value; then the values are put in. They are what looks like structure: code,
patterns, text with commas and quotes. A repair may give back the calls as they were, or none: other
calls, and any at all of damage that hides what was meant, are *unsafe*. Exits 1 if there are any.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from random import Random
from typing import Annotated, Any, NamedTuple, TypeAlias

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import toolguard
from toolguard import FormatError, Repair, Toolset, WireFormat

from .literal_damages import DAMAGES, LOOKS_ESCAPED, STAND_IN, UNESCAPED, Says
from .real_data import made_calls

Call: TypeAlias = dict[str, Any]

_TEXT, _NUMBER, _ANY = {"type": "string"}, {"type": "integer"}, {"type": "array"}
TOOLS = [
    {
        "name": name,
        "parameters": {"type": "object", "properties": properties, "required": [*properties][:1]},
    }
    for name, properties in {
        "edit": {"path": _TEXT, "n": _NUMBER, "refs": _ANY, "note": _TEXT},
        "route": {"start": _TEXT, "goal": _TEXT, "fast": {"type": "boolean"}},
        "store": {"m": {"type": "object"}, "km": {"type": "number"}},
        "log": {"rows": _ANY},
        "get_time": {"time_zone": _TEXT},
        "now": {},
    }.items()
]
STRINGS = (
    *("a.txt", "Rome", "it's", 'say "hi", then go', "a, b", "x=1, y=2", "n: 3", "[draft] (old)"),
    *(r"\d+", r"\.py$", r"C:\new\file", "f(a=1)", "for i in range(3):\n    print(i)", "null", "7"),
    *("{a: 1}", "Oslo (N)", "50%", "über, „so“", "a/b", "=SUM(A1:B2)", "</b>", "True", "-"),
    *("now()", "n=7", '"n": 7', "b, n=7", "a='b'", '["b"]', "it ends }", "a\n\nb", "a „so“", "x:"),
)


class Turn(NamedTuple):
    """A damaged turn: `text` was `calls`."""

    wire_format: str
    damage: str
    text: str
    calls: list[Call]
    says: Says


def turns(names: Sequence[str], seed: int) -> Iterator[Turn]:
    """Damaged turns without end, in these formats."""
    random = Random(seed)
    while True:
        wire_format = WireFormat.load(random.choice(names))
        calls = [_call(random) for _ in range(random.choice((1, 1, 1, 2, 3)))]
        try:
            strings: list[str] = []
            text = toolguard.render(wire_format, _stood_in(calls, strings))
            quoted = {
                found[1] for found in STAND_IN.finditer(text) if text[found.start() - 1] in QUOTES
            }
            plain = _put_in(text, strings, quoted)
        except FormatError:
            continue
        name = random.choice([*DAMAGES])
        damaged = DAMAGES[name](text, random)
        if damaged is None or damaged.text == text:
            continue
        if made_calls(toolguard.read_turn(plain, wire_format, TOOLSET)) != calls:
            continue  # lists in lists, which the format's own tags cannot tell
        if name in UNESCAPED and any(map(LOOKS_ESCAPED.search, strings)):
            continue  # it reads as something else, soundly
        written = _put_in(damaged.text, strings, quoted)
        yield Turn(wire_format.name, name, written, calls, damaged.says)


def repaired(turn: Turn) -> tuple[str, Repair]:
    """What became of a turn: `recovered`, `refused`, `unsafe`; where the damage shows as no fault,
    so that there is nothing to repair, `unseen`, or `other calls` if it is sound as these."""
    repair = toolguard.repair(turn.text, TOOLSET, turn.wire_format)
    made = made_calls(repair.after)
    readings = _without_more(made) if turn.says == "the calls and more" else [made]
    right = _exactly(turn.calls) in map(_exactly, readings) and turn.says != "nobody knows"
    if not repair.before.faults and repair.after is repair.before:
        return ("other calls" if made and not right else "unseen"), repair
    if not made:
        return "refused", repair
    return ("recovered" if right else "unsafe"), repair


def _exactly(calls: list[Call]) -> str:
    """Calls in which `1`, `1.0` and `True` differ."""
    return json.dumps(calls, sort_keys=True)


def _without_more(calls: list[Call]) -> Iterator[list[Call]]:
    """Calls without what `trailing_junk` says, in each way that they may have it."""
    kept = [_less(call) for call in calls if call["arguments"] != {"path": "b"}]
    if kept != calls:
        yield kept
    yield from (
        calls[:place] + calls[place + 1 :] for place, call in enumerate(calls) if call == _NOW
    )


def _less(value: Any) -> Any:
    match value:
        case dict():
            return {key: _less(inner) for key, inner in value.items() if inner not in _MORE}
        case list():
            return [*map(_less, value)]
        case _:
            return value


QUOTES = ('"', "'")
_NOW = {"name": "now", "arguments": {}}
_MORE = (9008, "x y")
TOOLSET = Toolset.of(TOOLS)


def _call(random: Random) -> Call:
    def text() -> str:
        return random.choice(STRINGS)

    def numbers() -> int:
        return random.randrange(9000, 9008)

    def array() -> list[Any]:
        kinds = (text, text, numbers, numbers, lambda: [text()], lambda: {"path": text()})
        return [random.choice(kinds)() for _ in range(random.randrange(3))]

    arguments: dict[str, dict[str, Callable[[], Any]]] = {
        "edit": {"path": text, "n": numbers, "refs": array, "note": text},
        "route": {"start": text, "goal": text, "fast": lambda: random.choice((True, False))},
        "store": {"m": lambda: {"path": text(), "n": numbers()}, "km": numbers},
        "log": {"rows": array},
        "get_time": {"time_zone": text},
        "now": {},
    }
    name = random.choice(("edit", "edit", "route", "route", "store", "log", "get_time", "now"))
    first, *rest = [*arguments[name], ""]
    chosen = [first, *(key for key in rest if random.random() < 0.6)]
    return {"name": name, "arguments": {key: arguments[name][key]() for key in chosen if key}}


def _stood_in(value: Any, strings: list[str]) -> Any:
    """The calls with stand-ins for the strings in them, which are listed."""
    match value:
        case {"name": name, "arguments": arguments}:
            return {"name": name, "arguments": _stood_in(arguments, strings)}
        case dict():
            return {key: _stood_in(inner, strings) for key, inner in value.items()}
        case list():
            return [_stood_in(inner, strings) for inner in value]
        case str():
            strings.append(value)
            return f"Zq{len(strings) - 1}z"
        case _:
            return value


def _put_in(text: str, strings: Sequence[str], quoted: Container[str]) -> str:
    """The text with the strings; those that stood in quotes are escaped as theirs want it now."""
    written, place = "", 0
    for found in STAND_IN.finditer(text):
        value, raw = strings[int(found[1])], text[: found.start()].endswith("Raw")
        before = text[place : found.start()].removesuffix("Raw")
        quote = (written + before)[-1:]
        if not raw and quote in QUOTES and found[1] in quoted:
            value = json.dumps(value, ensure_ascii=False)[1:-1]
            value = value if quote == '"' else value.replace('\\"', '"').replace("'", "\\'")
        written, place = written + before + value, found.end()
    return written + text[place:]


def main(
    count: Annotated[int, typer.Option("--turns", min=1)] = 20_000,
    seed: int = 0,
    formats: Annotated[list[str] | None, typer.Option("--format", help="Only these.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Print so many that are unsafe.")] = 20,
) -> None:
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in DAMAGES}
    unsafe: list[tuple[Turn, Repair]] = []
    source = turns(formats or toolguard.format_names(), seed)
    for _ in track(range(count), "turns", console=Console(stderr=True), transient=True):
        turn = next(source)
        outcome, repair = repaired(turn)
        outcomes[turn.damage][outcome] += 1
        if outcome == "unsafe":
            unsafe.append((turn, repair))
    table = Table(title=f"{count} damaged turns")
    table.add_column("damage")
    columns = ("unsafe", "recovered", "refused", "unseen", "other calls")
    for column in columns:
        table.add_column(column, justify="right")
    for name, counted in outcomes.items():
        table.add_row(name.replace("_", " "), *(str(counted[column]) for column in columns))
    total = sum(outcomes.values(), Counter[str]())
    table.add_row("all", *(str(total[column]) for column in columns))
    Console().print(table)
    for turn, repair in unsafe[:show]:
        rules = "; ".join(f"{e.rule} {e.span[0]} {e.before!r} {e.after!r}" for e in repair.edits)
        print(f"{turn.wire_format}, {turn.damage}: {turn.text!r}")
        print(f"  was {turn.calls}\n  out {made_calls(repair.after)} ({rules})")
    if unsafe:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
