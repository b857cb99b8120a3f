"""Rows as record batches of Parquet files. What is not repaired keeps its Arrow type."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import RowError
from .layout import Layout, Row, json_text
from .tally import Tally

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise RowError(
        "Parquet needs pyarrow: pip install '.[parquet]' in toolguard's clone"
    ) from error

SIZE = 64
"""Rows in a batch."""
GROUP_ROWS, GROUP_BYTES = 8192, 1 << 25
"""A row group is written when it has so many rows, or so many bytes in memory."""

_SPAN = pa.list_(pa.int64())
_CALLS = pa.list_(pa.struct([("name", pa.string()), ("arguments", pa.string())]))
RECORD = pa.struct(
    [
        ("error", pa.string()),
        ("state_before", pa.string()),
        ("state_after", pa.string()),
        ("confidence", pa.string()),
        (
            "faults",
            pa.list_(
                pa.struct(
                    [
                        ("kind", pa.string()),
                        ("span", _SPAN),
                        ("message", pa.string()),
                        ("where", pa.string()),
                        ("format", pa.string()),
                    ]
                )
            ),
        ),
        (
            "edits",
            pa.list_(
                pa.struct(
                    [
                        ("span", _SPAN),
                        ("before", pa.string()),
                        ("after", pa.string()),
                        ("rule", pa.string()),
                    ]
                )
            ),
        ),
        ("calls", _CALLS),
        ("candidates", pa.list_(_CALLS)),
        ("reason", pa.string()),
    ]
)
"""The column `toolguard`. The arguments of a call are JSON text: each tool has others."""

_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
_TOOL_CALLS = pa.list_(
    pa.struct([("id", pa.string()), ("type", pa.string()), ("function", _FUNCTION)])
)
_SPOKEN = {"content": pa.string(), "reasoning_content": pa.string(), "tool_calls": _TOOL_CALLS}
"""What a repair may put into a message."""


@dataclass(frozen=True)
class Columns:
    """Some rows of a file, one after the other.

    Attributes:
        path: the file.
        number: the number of the first row, from 1.
        batch: the rows, all their columns.
        position: how many bytes of all the files were read with them, about.
        columns: those that a repair reads.
    """

    path: str
    number: int
    batch: pa.RecordBatch
    position: int
    columns: tuple[str, ...]

    def rows(self) -> Iterator[Row | RowError | None]:
        """Each row, of the columns that a repair reads."""
        known = [name for name in self.columns if name in self.batch.schema.names]
        for row in self.batch.select(known).to_pylist():
            if not isinstance(row.get("tools"), str):
                # Parquet gives each object the keys of all of them, and nulls for what it lacks
                row["tools"] = _without_nulls(row.get("tools"))
            yield row

    def after(self, before: int) -> Columns:
        """The same, where other files with so many bytes were read before."""
        return replace(self, position=self.position + before)

    def written(self, rows: Sequence[Row | None], layout: Layout) -> pa.RecordBatch:
        """The batch with the turns of these rows and the column `toolguard`."""
        schema = schema_of(self.batch.schema, layout)
        column = turn_column(self.batch.schema, layout)
        new = {
            column: [row and row[column] for row in rows],
            "toolguard": [row and _flat(row["toolguard"]) for row in rows],
        }
        arrays = [
            pa.array(new[field.name], field.type)
            if field.name in new
            else self.batch.column(field.name)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def read(paths: Sequence[Path], columns: tuple[str, ...], skip: int = 0) -> Iterator[Columns]:
    """The rows of the files in batches, but for those of the first `skip` rows.

    Raises:
        RowError: a file cannot be read.
    """
    before = 0
    for path in paths:
        size = path.stat().st_size
        with _opened(path) as file:
            number, rows = 1, file.metadata.num_rows
            for batch in file.iter_batches(batch_size=SIZE):
                position = before + size * (number - 1 + len(batch)) // rows
                if skip <= 0:
                    yield Columns(str(path), number, batch, position, columns)
                skip -= len(batch)
                number += len(batch)
        before += size


def common_schema(paths: Sequence[Path]) -> pa.Schema:
    """The schema that all the files have.

    Raises:
        RowError: a file cannot be read, or has other columns than the first.
    """
    schemas = []
    for path in paths:
        with _opened(path) as file:
            schemas.append(file.schema_arrow)
    for path, schema in zip(paths, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise RowError(
                f"{path} has other columns than {paths[0]}: repair it into a file of its own"
            )
    return schemas[0]


def turn_column(schema: pa.Schema, layout: Layout) -> str:
    """The column with the turns.

    Raises:
        RowError: there is none of that name.
    """
    if layout.column is None and "messages" in schema.names:
        return "messages"
    column = layout.column or "text"
    if column not in schema.names:
        raise RowError(f"no column {column!r}, only {', '.join(schema.names)}: name one of them")
    return column


def schema_of(schema: pa.Schema, layout: Layout) -> pa.Schema:
    """The schema of the repaired rows.

    Raises:
        RowError: there is no column with turns, or it cannot hold calls.
    """
    column = turn_column(schema, layout)
    fields = [field for field in schema if field.name != "toolguard"]
    if column == "messages":
        fields = [f.with_type(_spoken(f.type)) if f.name == column else f for f in fields]
    kind = pa.list_(RECORD) if layout.every else RECORD
    return pa.schema([*fields, pa.field("toolguard", kind)], schema.metadata)


class Groups:
    """The row groups of a Parquet file that is being written, each a file in a folder until all are
    there: a Parquet file itself cannot be gone on with.

    Args:
        folder: where they are; those that an earlier run wrote are kept.
        schema: that of the rows.

    Attributes:
        tally: what became of the rows that an earlier run wrote.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(exist_ok=True)
        self.tally = Tally()
        self._folder, self._schema = folder, schema
        self._count = 0
        self._waiting: list[pa.RecordBatch] = []
        while (group := self._group(self._count)).exists():
            self.tally.merge(complete(group))
            self._count += 1

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; they are kept as soon as their group is full."""
        self._waiting.append(batch)
        rows = sum(map(len, self._waiting))
        if rows >= GROUP_ROWS or sum(held.nbytes for held in self._waiting) >= GROUP_BYTES:
            self._flush()

    def finish(self, path: Path) -> None:
        """Puts them together as one file, which gets its name when it is complete."""
        self._flush()
        with self._written(path) as file:
            for number in range(self._count):
                with _opened(self._group(number)) as group:
                    file.write_table(group.read().cast(self._schema))
        shutil.rmtree(self._folder)

    def _flush(self) -> None:
        if self._waiting:
            with self._written(self._group(self._count)) as file:
                file.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._count += 1
            self._waiting = []

    def _group(self, number: int) -> Path:
        return self._folder / f"{number}.parquet"

    @contextmanager
    def _written(self, path: Path) -> Iterator[pq.ParquetWriter]:
        new = self._folder / "new"
        with pq.ParquetWriter(new, self._schema) as file:
            yield file
        new.replace(path)


def complete(path: Path) -> Tally:
    """What became of the rows of a repaired file."""
    tally = Tally()
    with _opened(path) as file:
        for batch in file.iter_batches(columns=["toolguard"]):
            for said in batch.column("toolguard").to_pylist():
                tally.add(said)
    return tally


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise RowError(f"cannot read {path}: {error}") from error


def _spoken(kind: pa.DataType) -> pa.DataType:
    """The type of messages that a repair can put calls into."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return kind
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(
        kind.value_type
    ):
        raise RowError(f"the column 'messages' is {kind}, not a list of messages or its JSON text")
    fields = {field.name: field.type for field in kind.value_type}
    for name, wanted in _SPOKEN.items():
        if fields.get(name, pa.null()) == pa.null():
            fields[name] = wanted
    call = {"id": "", "type": "", "function": {"name": "", "arguments": ""}}
    try:
        pa.array(
            [{"content": "", "reasoning_content": "", "tool_calls": [call]}], pa.struct(fields)
        )
    except (pa.ArrowException, TypeError) as error:
        raise RowError(f"the column 'messages' cannot hold OpenAI's calls: {error}") from error
    made = pa.large_list if pa.types.is_large_list(kind) else pa.list_
    return made(pa.struct(fields))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value


def _flat(said: Any) -> Any:
    """Records with the arguments of their calls as JSON text."""
    if isinstance(said, list):
        return [_flat(record) for record in said]
    if "error" in said:
        return said
    candidates = [[_flat_call(call) for call in calls] for calls in said["candidates"]]
    return {**said, "calls": [_flat_call(call) for call in said["calls"]], "candidates": candidates}


def _flat_call(call: dict[str, Any]) -> dict[str, str]:
    return {"name": call["name"], "arguments": json_text(call["arguments"])}
