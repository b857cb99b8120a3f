"""A sweep: the same cases in every wire format, and in other words, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import RequestError
from ..evaluation.cases import Case
from ..evaluation.journal import Journal
from ..evaluation.run import Part, Watch, run
from ..evaluation.subject import Mode, Subject
from ..evaluation.variations import VARIATIONS
from ..formats.wire_format import WireFormat, format_names
from ..parsing.turn import Turn
from .answers import answers, as_json, described

AS_THEY_ARE = "as they are"
DESCRIBED, COMPACT = "tools described in the prompt", "described in compact JSON"


def sweep_parts(
    subject: Subject, cases: Sequence[Case], formats: Sequence[str] | None = None
) -> list[Part]:
    """What a sweep asks: the model's own format in every variation, then the other formats.

    Parts are named `FORMAT | VARIATION | MODE`.

    Args:
        formats: the other formats; all of them unless given.

    Raises:
        FormatError: there is no such format.
        RequestError: there are no cases.
    """
    if not cases:
        raise RequestError("no cases to sweep with: give at least one, better 50")
    own = subject.wire_format
    modes: tuple[Mode, ...] = ("unguarded", subject.modes_in[-1])

    def shown(name: str, varied: Sequence[Case], mode: Mode) -> Part:
        part = f"{own.name} | {name} | {mode}"
        return Part(part, varied, lambda some: as_json(subject.answer(some, mode)))

    asked = [
        shown(name, varied, mode)
        for name, varied in (
            (AS_THEY_ARE, cases),
            *((name, [vary(case) for case in cases]) for name, vary in VARIATIONS.items()),
        )
        for mode in modes
    ]
    others = [name for name in formats or format_names() if name != own.name]
    written = [(own, DESCRIBED, False), (own, COMPACT, True)]
    written += [(WireFormat.load(name), DESCRIBED, False) for name in others]
    return asked + [
        Part(
            f"{wire_format.name} | {name} | {mode}",
            cases,
            described(subject, wire_format, mode, compact=compact),
        )
        for wire_format, name, compact in written
        for mode in modes
    ]


def sweep(
    subject: Subject,
    cases: Sequence[Case],
    *,
    formats: Sequence[str] | None = None,
    journal: Journal | None = None,
    watch: Watch = lambda part, done: None,
) -> list[dict[str, Any]]:
    """Asks a model the same cases in every wire format and in several variations.

    Variations change what must not matter: the order in which parameters are described, the style
    of the tools' names, white space in JSON, delimiters around the request.

    Args:
        subject: the model: `toolguard.LocalModel` or `toolguard.Endpoint`.
        cases: what to ask it.
        formats: the formats besides its own; all unless given.
        journal: what is found out is kept there at once, and what it has is not asked again.
        watch: is told the progress.

    Returns:
        By format, variation and mode: states, faults and rates, as JSON values.

    Raises:
        FormatError: there is no such format.
        RequestError: there are no cases.
    """
    parts = sweep_parts(subject, cases, formats)
    found = run(parts, subject.batch, journal or Journal(None, {}), watch)
    rows = []
    for part in parts:
        wire_format, variation, mode = part.name.split(" | ")
        turns = [Turn.of_json(row) for row in found[part.name]]
        rows.append(
            {
                "format": wire_format,
                "variation": variation,
                "mode": mode,
                **answers(part.cases, turns),
            }
        )
    return rows
