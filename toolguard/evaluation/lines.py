"""The lines of a file of cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CaseError


@dataclass(frozen=True)
class Line:
    """One line: its number, where it stands, in words, and the JSON object that it is."""

    number: int
    place: str
    row: dict[str, Any]


def lines(path: Path) -> Iterator[Line]:
    """The lines of a JSONL file; blank ones are left out.

    Raises:
        CaseError: the file cannot be read, or a line is no JSON object.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"cannot read the case file {path}: {error}") from error
    # not splitlines(): JSON text may hold other line separators, as U+2028
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CaseError(f"{place}: no JSON ({error}); write one JSON object a line") from error
        if not isinstance(row, dict):
            raise CaseError(f"{place}: {type(row).__name__}; write one JSON object a line")
        yield Line(number, place, row)
