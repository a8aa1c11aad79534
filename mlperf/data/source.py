"""Interface of data sources, and reading ahead with threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Protocol, TypeVar

from mlperf.data.batch import Batch

Item = TypeVar("Item")
Key = TypeVar("Key")

# Minimum number of rows that a thread reads at a time, as several batches if they are small.
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
    read: Callable[[Key], Item],
    keys: Iterable[Key],
    threads: int,
    cancelled: threading.Event | None = None,
) -> Generator[Item, None, None]:
    """Yield `read(key)` for each of `keys`, in order, computed by threads that work ahead.

    At most two reads per thread are ahead. An exception of `read` is raised when its result is due. When the
    consumer closes this iterator, reads that are not yet started are cancelled, and `cancelled` is set, so that a
    long `read` can end early.
    """
    remaining = iter(keys)
    pending: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(threads, "read-ahead") as pool:

        def submit_next() -> None:
            for key in islice(remaining, 1):
                pending.append(pool.submit(read, key))

        try:
            for _ in range(2 * threads):
                submit_next()
            while pending:
                item = pending[0].result()
                pending.popleft()
                submit_next()
                yield item
        finally:
            if cancelled is not None:
                cancelled.set()
            # Wait for running reads before their threads are joined: in Python 3.11 a thread whose join a signal
            # interrupts counts as finished, and ending the interpreter while it runs PyTorch aborts the process.
            wait([future for future in pending if not future.cancel()])
