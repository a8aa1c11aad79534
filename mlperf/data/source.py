"""What a data source is to the training loop, and threads that read ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from mlperf.data.batch import Batch

Item = TypeVar("Item")


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


def read_ahead(
    read: Callable[[int], Item], numbers: Sequence[int], threads: int, together: int = 1
) -> Iterator[Item]:
    """Yield `read(number)` for each of `numbers`, in order, made by threads that read ahead.

    A thread makes `together` of them at a time, so that small ones do not cost a hand-over each, and two such
    groups wait for each thread. What `read` raises is raised here, in its group's place in the sequence. What is
    not yet begun is given up when the consumer drops this iterator.
    """
    starts = iter(range(0, len(numbers), together))
    pending: deque[Future[list[Item]]] = deque()
    with ThreadPoolExecutor(threads, "read-ahead") as pool:

        def begin_next() -> None:
            start = next(starts, None)
            if start is not None:
                group = numbers[start : start + together]
                pending.append(pool.submit(lambda: [read(number) for number in group]))

        try:
            for _ in range(2 * threads):
                begin_next()
            while pending:
                group = pending.popleft().result()
                begin_next()
                yield from group
        finally:
            for future in pending:
                future.cancel()
