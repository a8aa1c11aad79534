"""Work on a sequence by several threads, with stages that every item passes in order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def cores() -> int:
    """Return the cores this process may use, by its affinity."""
    return len(os.sched_getaffinity(0))


class Portions(Iterator[Item]):
    """An iterator used up in portions of some time, each at least one item; `ended`: nothing is left."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._deadline = 0.0
        self._begun = False
        self.ended = False

    def portion(self, seconds: float) -> Portions[Item]:
        """Return itself, which now ends, for a while, after so many seconds."""
        self._deadline = time.monotonic() + seconds
        self._begun = False
        return self

    def __next__(self) -> Item:
        if self.ended or (self._begun and time.monotonic() >= self._deadline):
            raise StopIteration
        self._begun = True
        try:
            return next(self._items)
        except StopIteration:
            self.ended = True
            raise


class _Abandoned(Exception):
    """Another thread failed."""


class Stages:
    """Lets items, numbered from 0, through each of `count` stages one at a time and in order."""

    def __init__(self, count: int) -> None:
        self._next = [0] * count
        self._changed = [threading.Condition() for _ in range(count)]
        self._abandoned = False

    @contextmanager
    def turn(self, stage: int, number: int) -> Iterator[None]:
        """Wait until all items before `number` have passed the stage, and let the next one in afterwards."""
        changed = self._changed[stage]
        with changed:
            changed.wait_for(lambda: self._abandoned or self._next[stage] == number)
            if self._abandoned:
                raise _Abandoned
        yield
        with changed:
            self._next[stage] = number + 1
            changed.notify_all()

    def abandon(self) -> None:
        """Wake everyone who waits: no item passes any more."""
        self._abandoned = True
        for changed in self._changed:
            with changed:
                changed.notify_all()


def work_in_order(
    items: Iterator[Item],
    make_worker: Callable[[Stages], Callable[[int, Item], None]],
    *,
    threads: int,
    stages: int,
) -> None:
    """Hand out the items, numbered from 0, to workers, one made for each thread; return when all are done.

    As many items as threads are under way at a time. The first error ends it all and is raised here, and so is
    a signal's exception.
    """
    gate = Stages(stages)
    drawing = threading.Lock()
    errors: list[BaseException] = []
    drawn = 0

    def draw() -> tuple[int, Item] | None:
        nonlocal drawn
        with drawing:
            item = next(items, None)
            if item is None:
                return None
            drawn += 1
            return drawn - 1, item

    def run() -> None:
        try:
            worker = make_worker(gate)
            while not errors and (numbered := draw()) is not None:
                worker(*numbered)
        except _Abandoned:
            pass
        except BaseException as error:
            errors.append(error)
            gate.abandon()

    workers = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except BaseException as error:  # a signal
        errors.append(error)
        gate.abandon()
        for worker in workers:
            if worker.ident is not None:
                worker.join()
        raise
    if errors:
        raise errors[0]
