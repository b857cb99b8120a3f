"""Work on many batches side by side, in order, with few of them in memory."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from ..errors import RowError

Batch = TypeVar("Batch")
Done = TypeVar("Done")

AHEAD = 4
"""Batches for each worker that are read before the first of them is given out."""


def in_order(
    work: Callable[[Batch], Done], batches: Iterable[Batch], workers: int
) -> Generator[Done, None, None]:
    """The work on each batch, in their order, by so many processes of this machine.

    Raises:
        RowError: a process died.
    """
    if workers == 1:
        yield from map(work, batches)
        return
    # not forked: a progress bar has threads
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (work,))
    waiting: deque[Future[Done]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(_work, batch))
            if len(waiting) == AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RowError(
            "a worker process died: out of memory, or killed. What was written is kept; the same "
            "command goes on from there, perhaps with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_given: Any = None
"""The work of this worker process."""


def _start(work: Callable[[Any], Any]) -> None:
    global _given
    _given = work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(batch: Any) -> Any:
    return _given(batch)


def on_ray(
    work: Callable[[Batch], Done], read: Callable[[], Iterable[Batch]], workers: int
) -> Generator[Done, None, None]:
    """The work on each batch, in their order, by so many tasks of a Ray cluster.

    It is the cluster at RAY_ADDRESS, or one of this machine alone. The batches are read, and given
    out, on this machine; the others need toolguard and nothing else.

    Raises:
        RowError: Ray is not installed.
    """
    try:
        import ray
        from ray.data import DataContext, Datasource, ReadTask, TaskPoolStrategy
        from ray.data.block import BlockMetadata
    except ImportError as error:
        raise RowError(
            "--engine ray needs Ray: pip install '.[ray]' in toolguard's clone"
        ) from error
    import pyarrow as pa

    class Batches(Datasource):
        """All batches, read one after the other by one task."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *args: Any, **options: Any) -> list[ReadTask]:
            return [ReadTask(blocks, BlockMetadata(None, None, None, None))]

    def blocks() -> Iterator[pa.Table]:
        for batch in read():
            yield pa.table({"batch": [pickle.dumps(batch)]})

    def worked(row: dict[str, Any]) -> dict[str, Any]:
        return {"done": pickle.dumps(work(pickle.loads(row["batch"])))}

    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.target_max_block_size = 1 << 18  # small blocks, so that each worker gets some
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    with DataContext.current(context):
        # a reader without a CPU of its own is not fused with the work, which one task would do then
        rows = ray.data.read_datasource(
            Batches(),  # type: ignore[no-untyped-call]
            num_cpus=0,
            label_selector=here,
        ).map(worked, num_cpus=1, compute=TaskPoolStrategy(size=workers))
        for row in rows.iter_rows():
            yield pickle.loads(row["done"])
