"""What a data source is to the training loop, and threads that read ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from mlperf.data.batch import Batch


class BatchSource(Protocol):
    """Batches of one split. The last batch of an epoch may be smaller than the others."""

    @property
    def samples(self) -> int:
        """Samples in an epoch."""
        ...

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `first` on. The same arguments give the same batches."""
        ...


def read_ahead(read: Callable[[int], Batch], numbers: Sequence[int], threads: int) -> Iterator[Batch]:
    """Yield `read(number)` for each of `numbers`, in order, made by threads two batches ahead each.

    What `read` raises is raised here, in its place in the sequence. Batches not yet begun are given up when
    the consumer drops this iterator.
    """
    remaining = iter(numbers)
    pending: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(threads, "read-ahead") as pool:

        def begin_next() -> None:
            number = next(remaining, None)
            if number is not None:
                pending.append(pool.submit(read, number))

        try:
            for _ in range(2 * threads):
                begin_next()
            while pending:
                batch = pending.popleft().result()
                begin_next()
                yield batch
        finally:
            for future in pending:
                future.cancel()
