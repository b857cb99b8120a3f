"""A run over many cases in several parts, that can be stopped at any point and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .cases import Case
from .journal import Journal

Watch = Callable[[str, int], None]
"""Is told the part of a run, and how many more of its cases are done."""


@dataclass(frozen=True)
class Part:
    """One question that is put to cases.

    Attributes:
        name: its name in the journal.
        cases: the cases.
        ask: finds out about some of them, one JSON value each, in order.
    """

    name: str
    cases: Sequence[Case]
    ask: Callable[[Sequence[Case]], Iterable[Any]]


def run(parts: Sequence[Part], batch: int, journal: Journal, watch: Watch) -> dict[str, list[Any]]:
    """What is found out, by part, one value a case; each batch is kept as soon as it is had."""
    for part in parts:
        have = journal.rows[part.name]
        watch(part.name, sum(case.id in have for case in part.cases))
        missing = [case for case in part.cases if case.id not in have]
        for first in range(0, len(missing), batch):
            some = missing[first : first + batch]
            ids = (case.id for case in some)
            journal.add(part.name, zip(ids, part.ask(some), strict=True))
            watch(part.name, len(some))
    return {part.name: [journal.rows[part.name][case.id] for case in part.cases] for part in parts}
