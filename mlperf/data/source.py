"""Interface of data sources, and reading ahead with threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from mlperf.data.batch import Batch

Item = TypeVar("Item")


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


def read_ahead(
    read: Callable[[int], Item], numbers: Sequence[int], threads: int, group_size: int = 1
) -> Iterator[Item]:
    """Yield `read(number)` for each of `numbers`, in order, computed by threads that work ahead.

    A thread reads `group_size` numbers at a time, to reduce overhead when reads are short. At most two groups per
    thread are read ahead. An exception of `read` is raised when its group is due. When the consumer closes this
    iterator, groups that are not yet started are cancelled.
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
            # Wait for running reads before their threads are joined: in Python 3.11 a thread whose join a signal
            # interrupts counts as finished, and ending the interpreter while it runs PyTorch aborts the process.
            wait([future for future in pending if not future.cancel()])
