"""Interface of data sources, and reading ahead with threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

from mlperf.data.batch import Batch
from mlperf.util.threads import Threads, result_of

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


@runtime_checkable
class SharedSource(BatchSource, Protocol):
    """Batches of which `batches` yields the share of this process."""

    def sizes(self, epoch: int, first: int = 0) -> Iterator[int]:
        """Yield the number of samples of each of these batches, over all processes."""
        ...


@runtime_checkable
class ReadAhead(BatchSource, Protocol):
    """Batches that threads read and decode while others are computed."""

    @property
    def readers(self) -> int:
        """Number of threads."""
        ...

    @property
    def seconds_reading(self) -> float:
        """Seconds that the threads have spent on reading and decoding so far."""
        ...


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
    with Threads(threads, "read-ahead") as pool:

        def submit_next() -> None:
            for key in islice(remaining, 1):
                pending.append(pool.submit(read, key))

        try:
            for _ in range(2 * threads):
                submit_next()
            while pending:
                item = result_of(pending.popleft())
                submit_next()
                yield item
        finally:
            if cancelled is not None:
                cancelled.set()
