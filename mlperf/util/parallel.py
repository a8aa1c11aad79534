"""Process a sequence with several threads, with stages that the items pass in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mlperf.util.signals import deferred
from mlperf.util.threads import Threads, result_of

Item = TypeVar("Item")


class Portions(Iterator[Item]):
    """Iterator that can be consumed in time-limited portions of at least one item.

    exhausted: whether all items have been returned.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._deadline = 0.0
        self._portion_started = False
        self.exhausted = False

    def portion(self, seconds: float) -> Portions[Item]:
        """Return an iterator (this object) over the next items, which stops after `seconds`."""
        self._deadline = time.monotonic() + seconds
        self._portion_started = False
        return self

    def __next__(self) -> Item:
        if self.exhausted or (self._portion_started and time.monotonic() >= self._deadline):
            raise StopIteration
        self._portion_started = True
        try:
            return next(self._items)
        except StopIteration:
            self.exhausted = True
            raise


class _StagesAborted(Exception):
    """Raised in waiting threads after another thread failed."""


class Stages:
    """Stages that numbered items, starting at 0, pass one at a time and in order."""

    def __init__(self, count: int) -> None:
        self._next = [0] * count
        self._changed = [threading.Condition() for _ in range(count)]
        self._aborted = False

    @contextmanager
    def turn(self, stage: int, number: int) -> Iterator[None]:
        """Run the `with` block once all items before `number` have passed `stage`."""
        changed = self._changed[stage]
        with changed:
            changed.wait_for(lambda: self._aborted or self._next[stage] == number)
            if self._aborted:
                raise _StagesAborted
        yield
        with changed:
            self._next[stage] = number + 1
            changed.notify_all()

    def abort(self) -> None:
        """Abort: wake all waiting threads; no more items pass."""
        self._aborted = True
        for changed in self._changed:
            with changed:
                changed.notify_all()


def run_in_order(
    items: Iterator[Item],
    make_worker: Callable[[Stages], Callable[[int, Item], None]],
    *,
    threads: int,
    stages: int,
) -> None:
    """Call `worker(number, item)` for each item, numbered from 0, on several threads; return when all are done.

    `make_worker(stages)` makes one worker for each thread. No more items than threads are processed at a time. The
    first exception, including one raised by a signal handler, ends all threads and is raised here. threads: 0 only
    if there are no items.
    """
    if threads == 0:
        return
    gate = Stages(stages)
    lock = threading.Lock()
    errors: list[BaseException] = []
    taken = 0

    def take() -> tuple[int, Item] | None:
        nonlocal taken
        with lock:
            item = next(items, None)
            if item is None:
                return None
            taken += 1
            return taken - 1, item

    def run() -> None:
        try:
            worker = make_worker(gate)
            while not errors and (numbered := take()) is not None:
                worker(*numbered)
        except _StagesAborted:
            pass
        except BaseException as error:
            errors.append(error)
            gate.abort()

    with Threads(threads) as pool:
        try:
            for started in [pool.submit(run) for _ in range(threads)]:
                result_of(started)
        except BaseException as error:  # raised in this thread by a signal handler
            with deferred():
                errors.append(error)
                gate.abort()
            raise
    if errors:
        raise errors[0]
