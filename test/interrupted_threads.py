"""Program of test_threads.py: one signal at each of many moments of `read_ahead` or `run_in_order`.

Python delivers signals between instructions, so the program counts the instructions that the main thread runs in
the code of threads, repeats the work with a signal at each, and prints how often that was. It hangs if a signal
leaves a lock closed, and fails if a thread is left for whose end the interpreter does not wait.
"""

from __future__ import annotations

import concurrent.futures.thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.thread import _threads_queues
from contextlib import contextmanager
from types import FrameType
from typing import Any

import mlperf.data.source
import mlperf.util.parallel
import mlperf.util.threads
from mlperf.data.source import read_ahead
from mlperf.util.parallel import Stages, run_in_order
from mlperf.util.signals import Stopped, raised_in_program

TRACED = {
    module.__file__
    for module in (threading, concurrent.futures.thread, concurrent.futures._base, mlperf.data.source)
} | {mlperf.util.parallel.__file__, mlperf.util.threads.__file__}


def slow_square(number: int) -> int:
    time.sleep(0.0003)
    return number * number


def read() -> None:
    assert list(read_ahead(slow_square, range(5), threads=2)) == [0, 1, 4, 9, 16]


def process() -> None:
    done = []

    def make_worker(stages: Stages) -> Callable[[int, int], None]:
        def work(number: int, item: int) -> None:
            slow_square(item)
            with stages.turn(0, number):
                done.append(item)

        return work

    run_in_order(iter(range(5)), make_worker, threads=2, stages=1)
    assert done == list(range(5))


@contextmanager
def signal_at(moment: int) -> Iterator[None]:
    """Send SIGHUP before the instruction number `moment` in the code of threads, counted from 0."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in TRACED:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == moment + 1:
                sys.settrace(None)
                signal.raise_signal(signal.SIGHUP)
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def was_stopped(work: Callable[[], None], moment: int) -> bool:
    """Return whether `work` lasted until `moment`."""
    try:
        with raised_in_program(), signal_at(moment):
            work()
    except Stopped:
        return True
    return False


def main() -> None:
    work, step, moments = {"read": read, "process": process}[sys.argv[1]], int(sys.argv[2]), 0
    while was_stopped(work, moments * step):
        moments += 1
        unknown = set(threading.enumerate()) - set(_threads_queues) - {threading.main_thread()}
        assert not any(thread.is_alive() for thread in unknown), "nobody waits for the end of a thread"
    print(moments)


if __name__ == "__main__":
    main()
