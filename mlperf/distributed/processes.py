"""The processes of a run, and which part of a batch each of them computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """All processes of a run, seen from one of them.

    rank: number of this process, from 0. size: number of processes. local_rank, local_size: the same on this node.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes the files and the output of the run."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Number of machines, each with the same number of processes."""
        return -(-self.size // self.local_size)

    def share(self, count: int) -> tuple[int, int]:
        """Return the first of the samples of this process in a batch of `count` samples, and their number.

        The shares are consecutive. All have `largest_share` samples but the last ones, with fewer or none.
        """
        first = min(self.rank * self.largest_share(count), count)
        return first, min(self.largest_share(count), count - first)

    def largest_share(self, count: int) -> int:
        """Return the number of samples of rank 0 in a batch of `count` samples."""
        return -(-count // self.size)


ALONE = Processes()

_current = ALONE


def current() -> Processes:
    """Return the processes of this run."""
    return _current


@contextmanager
def running_as(processes: Processes) -> Iterator[None]:
    """Make `processes` the current ones."""
    global _current  # noqa: PLW0603
    before, _current = _current, processes
    try:
        yield
    finally:
        _current = before
