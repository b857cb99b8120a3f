"""Files of rows in, one file of the same rows out, their turns repaired."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import RowError, ToolguardError
from ..formats.wire_format import WireFormat
from . import jsonl
from .engines import in_order, on_ray
from .layout import Layout, Row
from .tally import Tally

if TYPE_CHECKING:
    from .parquet import Columns

Engine = Literal["local", "ray"]
_Read: TypeAlias = "Callable[[], Iterator[jsonl.Lines | Columns]]"
_Run: TypeAlias = "Callable[[_Read], Generator[Done, None, None]]"


@dataclass(frozen=True)
class Done:
    """What became of a batch.

    Attributes:
        content: its rows, as they are written: lines, or a record batch.
        tally: what became of them.
        errors: where and why a row was passed through, a line each.
        position: how many bytes of all the files were read with it.
    """

    content: Any
    tally: Tally
    errors: tuple[str, ...]
    position: int


def repair_files(
    inputs: Sequence[Path],
    out: Path,
    layout: Layout | None = None,
    *,
    workers: int = 1,
    engine: Engine = "local",
    overwrite: bool = False,
    watch: Callable[[Done], None] = lambda done: None,
) -> Tally:
    """Repairs the turns of all rows, in order; JSONL into JSONL, Parquet into Parquet.

    A row without a turn or without tools is passed through, with the reason. If it is interrupted,
    the same call goes on after the last complete line of a JSONL file, or after the last complete
    row group of a Parquet file (8,192 rows; they wait in the folder `OUT.groups` for the file to be
    complete). `OUT.state.json` remembers what it was made of.

    Args:
        inputs: JSONL files, also packed (.gz, .xz), or Parquet files.
        out: the file to write.
        layout: where a row keeps its turns and tools.
        workers: how many processes, or Ray tasks, repair side by side.
        engine: processes of this machine, or a Ray cluster.
        overwrite: start over, whatever `out` is.
        watch: called with each batch when it is written, and before with what was written already.

    Raises:
        RowError: a file cannot be read or written, or `out` was made of something else.
        FormatError: there is no wire format of that name.
    """
    layout = layout or Layout()
    if layout.format != "auto":
        WireFormat.load(layout.format)
    parquet = _is_parquet(inputs, out)
    begun = _begin(inputs, out, layout, overwrite)
    run = partial(_run, layout=layout, workers=workers, engine=engine)
    try:
        if parquet:
            return _into_parquet(inputs, out, layout, run, watch)
        return _into_jsonl(inputs, out, run, begun, watch)
    except OSError as error:
        raise RowError(f"cannot write {out}: {error}") from error


def repair_batch(batch: jsonl.Lines | Columns, layout: Layout) -> Done:
    """The batch with its turns repaired."""
    tally = Tally()
    rows: list[Row | None] = []
    errors = []
    for number, row in enumerate(batch.rows(), batch.number):
        new: Row | None = None
        if isinstance(row, dict):
            new, error = _repaired(row, layout)
        else:
            error = str(row or "")
        if error:
            errors.append(f"{batch.path}:{number}: {error}")
        if row is not None:
            tally.add(new and new["toolguard"])
        rows.append(new)
    return Done(batch.written(rows, layout), tally, tuple(errors), batch.position)


def _repaired(row: Row, layout: Layout) -> tuple[Row, str]:
    try:
        return layout.repaired(row), ""
    except ToolguardError as error:
        message = str(error)
    except Exception as error:  # one row must not end a run over millions
        message = f"{type(error).__name__}: {error}"
    return layout.unrepaired(row, message), message


def _run(
    read: _Read,
    layout: Layout,
    workers: int,
    engine: Engine,
) -> Generator[Done, None, None]:
    work = partial(repair_batch, layout=layout)
    return on_ray(work, read, workers) if engine == "ray" else in_order(work, read(), workers)


def _into_jsonl(
    inputs: Sequence[Path], out: Path, run: _Run, begun: bool, watch: Callable[[Done], None]
) -> Tally:
    count, size, written = jsonl.complete(out) if begun else (0, 0, Tally())
    tally = Tally()
    tally.merge(written)
    with (
        out.open("r+b" if begun else "wb") as file,
        closing(run(partial(jsonl.read, inputs, count))) as batches,
    ):
        watch(Done(b"", written, (), 0))
        file.truncate(size)
        file.seek(size)
        for done in batches:
            file.write(done.content)
            file.flush()
            tally.merge(done.tally)
            watch(done)
    return tally


def _into_parquet(
    inputs: Sequence[Path],
    out: Path,
    layout: Layout,
    run: _Run,
    watch: Callable[[Done], None],
) -> Tally:
    from . import parquet

    tally = Tally()
    if out.exists():
        shutil.rmtree(_groups_of(out), ignore_errors=True)
        tally.merge(parquet.complete(out))
        watch(Done(None, tally, (), 0))
        return tally
    schema = parquet.schema_of(parquet.common_schema(inputs), layout)
    groups = parquet.Groups(_groups_of(out), schema)
    tally.merge(groups.tally)
    watch(Done(None, groups.tally, (), 0))
    read = partial(parquet.read, inputs, layout.columns, groups.tally.rows)
    with closing(run(read)) as batches:
        for done in batches:
            groups.write(done.content)
            tally.merge(done.tally)
            watch(done)
    groups.finish(out)
    return tally


def _groups_of(out: Path) -> Path:
    """Where the row groups of a Parquet file wait until all are there."""
    return out.with_name(out.name + ".groups")


def _begin(inputs: Sequence[Path], out: Path, layout: Layout, overwrite: bool) -> bool:
    """Whether an earlier run with the same inputs and options has begun to write the file."""
    state, groups = out.with_name(out.name + ".state.json"), _groups_of(out)
    try:
        for path in inputs:
            if out.exists() and out.samefile(path):
                raise RowError(f"{out} is one of the inputs: write into another file")
        now = _state(inputs, layout)
    except OSError as error:
        raise RowError(f"cannot read the input: {error}") from error
    if (out.exists() or groups.exists()) and not overwrite:
        then = _read_state(state)
        if then is None:
            raise RowError(f"{out} exists and is of no repair: name another, or --overwrite it")
        changed = [key for key in now if then.get(key) != now[key]]
        if changed:
            raise RowError(
                f"{out} was made with other {' and '.join(changed)} (see {state}): give the same "
                "to go on, name another file, or --overwrite it"
            )
        return True
    try:
        out.unlink(missing_ok=True)
        shutil.rmtree(groups, ignore_errors=True)
        new = state.with_name(state.name + ".new")
        new.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
        new.replace(state)
    except OSError as error:
        raise RowError(f"cannot write {out}: {error}") from error
    return False


def _state(inputs: Sequence[Path], layout: Layout) -> dict[str, Any]:
    """What the output is made of. Files are told by size and time: reading all of them is dear."""
    from .. import __version__

    options = asdict(layout)
    tools = options.pop("tools")
    if tools is not None:
        options["tools"] = hashlib.sha256(json.dumps(tools).encode()).hexdigest()
    files = [(path, path.stat()) for path in inputs]
    return {
        "toolguard": __version__,
        "inputs": [
            {"file": path.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
            for path, stat in files
        ],
        "options": options,
    }


def _read_state(path: Path) -> dict[str, Any] | None:
    try:
        state = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _is_parquet(inputs: Sequence[Path], out: Path) -> bool:
    kinds = {path.suffix == ".parquet" for path in (*inputs, out)}
    if len(kinds) > 1:
        raise RowError("Parquet is repaired into Parquet and JSONL into JSONL: do not mix the two")
    if out.suffix in (".gz", ".xz"):
        raise RowError(f"{out} is written as it is: leave {out.suffix} away, and pack it later")
    return kinds == {True}
