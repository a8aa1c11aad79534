"""Threads that a signal cannot leave half started, forgotten, or waiting for a lock that nobody releases.

The handler of a signal raises an exception in the main thread, between any two instructions. In the standard
library's `Thread.start`, `Thread.join` and `Executor.submit`, that leaves locks closed, so that the program never
ends, and threads that count as finished while they run: if they run PyTorch when the interpreter ends, the process
aborts. Here signals are deferred while threads are started, ended, or asked for a result; they interrupt only the
waiting for a result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

from mlperf.util.signals import deferred

Given = ParamSpec("Given")
Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Cancelled(Exception):
    """The result of a call that is in progress is not needed any more."""


def raise_if_set(cancelled: threading.Event | None) -> None:
    """Raise Cancelled if the event `cancelled` is set."""
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


def result_of(future: Future[Result]) -> Result:
    """Return the result of `future`, or raise its exception. A signal may interrupt the waiting."""
    finished: SimpleQueue[Future[Result]] = SimpleQueue()  # whose `get`, in C, leaves nothing when interrupted
    with deferred():
        future.add_done_callback(finished.put)
    finished.get()
    with deferred():
        return future.result()


class Threads:
    """Pool of threads, to be used in a `with` block, at whose end calls that have not begun are cancelled.

    threads: maximum number of threads, at least 1. name: the start of their names, for debuggers.
    """

    def __init__(self, threads: int, name: str = "worker") -> None:
        self._pool = ThreadPoolExecutor(threads, name)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *failure: object) -> None:
        with deferred():
            self._pool.shutdown(cancel_futures=True)

    def submit(
        self, function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Result]:
        """Call `function` in one of the threads. Use `result_of` for the result."""
        with deferred():
            return self._pool.submit(function, *args, **kwargs)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Return an iterator over `function(item)` for all `items`, in their order. The calls begin at once."""
        return map(result_of, [self.submit(function, item) for item in items])
