"""The states and faults of the turns in files of rows, by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RowError, ToolguardError
from ..formats.wire_format import WireFormat
from ..parsing.turn import STATES
from . import jsonl
from .engines import in_order
from .layout import Layout

if TYPE_CHECKING:
    from .parquet import Columns


@dataclass
class Group:
    """The turns of the rows that have one value in common.

    Attributes:
        turns: how many.
        states: turns by state.
        faults: turns by the kinds of their faults; a turn counts once for each kind.
    """

    turns: int = 0
    states: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Group) -> None:
        """Adds what another group counted."""
        self.turns += other.turns
        self.states += other.states
        self.faults += other.faults

    def to_json(self) -> dict[str, Any]:
        """The counts as plain JSON values."""
        return {
            "turns": self.turns,
            "states": {state: self.states[state] for state in STATES},
            "faults": dict(self.faults.most_common()),
        }


@dataclass
class Classes:
    """What the turns of some rows are.

    Attributes:
        groups: by the value that they were grouped by; by None where they were not.
        rows: all rows.
        errors: where and why a row has no class, a line each; of this batch alone.
        failed: how many rows have none.
        position: how many bytes of all the files were read.
    """

    groups: dict[Any, Group] = field(default_factory=dict)
    rows: int = 0
    errors: tuple[str, ...] = ()
    failed: int = 0
    position: int = 0

    def merge(self, other: Classes) -> None:
        """Adds what another batch counted."""
        for value, group in other.groups.items():
            self.groups.setdefault(value, Group()).merge(group)
        self.rows += other.rows
        self.failed += other.failed

    def in_order(self) -> dict[Any, Group]:
        """The groups by their value where all are numbers, else as they appeared."""
        if all(isinstance(value, int | float) for value in self.groups):
            return dict(sorted(self.groups.items()))
        return self.groups


def fault_totals(groups: Mapping[Any, Group]) -> Counter[str]:
    """Turns with a fault of each kind, over all groups."""
    return sum((group.faults for group in groups.values()), Counter[str]())


def classify_files(
    inputs: Sequence[Path],
    layout: Layout | None = None,
    *,
    by: str | None = None,
    workers: int = 1,
    watch: Callable[[Classes], None] = lambda classes: None,
) -> Classes:
    """Classifies the turns of all rows.

    Args:
        inputs: JSONL files, also packed (.gz, .xz), or Parquet files.
        layout: where a row keeps its turns and tools.
        by: the column to group by, such as `checkpoint` or `step`.
        workers: how many processes classify side by side.
        watch: called with each batch.

    Raises:
        RowError: a file cannot be read.
        FormatError: there is no wire format of that name.
    """
    layout = layout or Layout()
    if layout.format != "auto":
        WireFormat.load(layout.format)
    whole = Classes()
    work = partial(classify_batch, layout=layout, by=by)
    with closing(in_order(work, _read(inputs, layout, by), workers)) as batches:
        for classes in batches:
            whole.merge(classes)
            watch(classes)
    return whole


def classify_batch(batch: jsonl.Lines | Columns, layout: Layout, by: str | None) -> Classes:
    """What the turns of a batch are."""
    classes = Classes(position=batch.position)
    errors = []
    for number, row in enumerate(batch.rows(), batch.number):
        if row is None:
            continue
        classes.rows += 1
        try:
            if not isinstance(row, dict):
                raise row
            value = None if by is None else _value(row, by)
            turns = layout.classified(row)
        except ToolguardError as error:
            errors.append(f"{batch.path}:{number}: {error}")
            continue
        except Exception as error:  # one row must not end a run over millions
            errors.append(f"{batch.path}:{number}: {type(error).__name__}: {error}")
            continue
        group = classes.groups.setdefault(value, Group())
        for turn in turns:
            group.turns += 1
            group.states[turn.state] += 1
            group.faults.update({fault.kind for fault in turn.faults})
    classes.errors = tuple(errors)
    classes.failed = len(errors)
    return classes


def _value(row: dict[str, Any], by: str) -> Any:
    value = row.get(by)
    if value is None:
        raise RowError(f"no {by!r} to group by")
    return value if isinstance(value, str | int | float) else str(value)


def _read(
    inputs: Sequence[Path], layout: Layout, by: str | None
) -> Iterator[jsonl.Lines | Columns]:
    columns = layout.columns if by is None else (*layout.columns, by)
    before = 0
    for path in inputs:
        batches: Iterator[jsonl.Lines | Columns]
        if path.suffix == ".parquet":
            from . import parquet

            batches = parquet.read([path], columns)
        else:
            batches = jsonl.read([path])
        for batch in batches:
            yield batch.after(before)
        before += path.stat().st_size
