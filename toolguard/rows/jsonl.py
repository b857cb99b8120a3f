"""Rows as lines of JSON: one line out for each line in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ..errors import RowError
from .layout import Layout, Row, json_text
from .opened import opened
from .tally import Tally

SIZE = 64
"""Lines in a batch."""


@dataclass(frozen=True)
class Lines:
    """Some lines of a file, one after the other.

    Attributes:
        path: the file.
        number: the number of the first line.
        lines: the lines as they are, each with its line end.
        position: how many bytes of all the files were read with them.
    """

    path: str
    number: int
    lines: tuple[bytes, ...]
    position: int

    def rows(self) -> Iterator[Row | RowError | None]:
        """Each line's row; what is wrong with it if it is none; None where a line is blank."""
        for line in self.lines:
            yield row_of(line) if line.strip() else None

    def after(self, before: int) -> Lines:
        """The same, where other files with so many bytes were read before."""
        return replace(self, position=self.position + before)

    def written(self, rows: Sequence[Row | None], layout: Layout) -> bytes:
        """The lines with these rows; where there is none, the line as it was."""
        return b"".join(
            line if row is None else json_text(row).encode() + b"\n"
            for line, row in zip(self.lines, rows, strict=True)
        )


def row_of(line: bytes) -> Row | RowError:
    """The row of one line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return RowError(f"no JSON: {error}")
    return row if isinstance(row, dict) else RowError("no row: it is not a JSON object")


def read(paths: Sequence[Path], skip: int = 0) -> Iterator[Lines]:
    """The lines of the files in batches, but for the first `skip` lines.

    Raises:
        RowError: a file cannot be read.
    """
    before = 0
    for path in paths:
        with opened(path) as (content, raw):
            number = 1
            for _ in islice(content, skip):
                number += 1
            skip -= number - 1
            while lines := tuple(islice(content, SIZE)):
                if not lines[-1].endswith(b"\n"):  # the file's last line
                    lines = (*lines[:-1], lines[-1] + b"\n")
                yield Lines(str(path), number, lines, before + raw.tell())
                number += len(lines)
        before += path.stat().st_size


def complete(path: Path) -> tuple[int, int, Tally]:
    """How many complete lines a repaired file has, their bytes, and what became of their rows."""
    count = size = 0
    tally = Tally()
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            count += 1
            size += len(line)
            if line.strip():
                row = row_of(line)
                tally.add(row.get("toolguard") if isinstance(row, dict) else None)
    return count, size, tally
