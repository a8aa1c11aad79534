"""Interface of data sources, and reading ahead with threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from mlperf.data.batch import Batch

Item = TypeVar("Item")

# Minimum number of rows that a reader thread returns at a time, as several batches if they are small.
MIN_GROUP_ROWS = 8192


class BatchSource(Protocol):
    """The batches of one split. The last batch of an epoch may be smaller than the others."""

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        ...

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from batch number `first` on. The same arguments give the same batches."""
        ...


class Cancelled(Exception):
    """A batch that is being drawn is not needed any more."""


def raise_if_set(cancelled: threading.Event | None) -> None:
    """Raise Cancelled if the event `cancelled` is set."""
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


def read_ahead(
    read: Callable[[int], Item],
    numbers: Sequence[int],
    threads: int,
    group_size: int = 1,
    cancelled: threading.Event | None = None,
) -> Generator[Item, None, None]:
    """Yield `read(number)` for each of `numbers`, in order, computed by threads that work ahead.

    A thread reads `group_size` numbers at a time, to reduce overhead when reads are short. At most two groups per
    thread are read ahead. An exception of `read` is raised when its group is due. When the consumer closes this
    iterator, groups that are not yet started are cancelled, and `cancelled` is set, so that a long `read` can end
    early.
    """
    starts = iter(range(0, len(numbers), group_size))
    pending: deque[Future[list[Item]]] = deque()
    with ThreadPoolExecutor(threads, "read-ahead") as pool:

        def submit_next() -> None:
            start = next(starts, None)
            if start is not None:
                group = numbers[start : start + group_size]
                pending.append(pool.submit(lambda: [read(number) for number in group]))

        try:
            for _ in range(2 * threads):
                submit_next()
            while pending:
                group = pending[0].result()
                pending.popleft()
                submit_next()
                yield from group
        finally:
            if cancelled is not None:
                cancelled.set()
            # Wait for running reads before their threads are joined: in Python 3.11 a thread whose join a signal
            # interrupts counts as finished, and ending the interpreter while it runs PyTorch aborts the process.
            wait([future for future in pending if not future.cancel()])
