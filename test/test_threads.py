"""Threads are started, ended and waited for in such a way that signals leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from program import ROOT, same_signal_handlers

from mlperf.util.errors import RunError
from mlperf.util.signals import Stopped, raised_in_program
from mlperf.util.threads import Threads, result_of

STEP = 9  # a signal at every ninth instruction


@pytest.mark.parametrize("work", ["read", "process"])
def test_signal_at_any_moment_leaves_no_lock_and_no_thread_behind(work: str) -> None:
    program = ROOT / "test" / "interrupted_threads.py"
    done = subprocess.run(
        [sys.executable, str(program), work, str(STEP)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1000 / STEP


def test_waiting_for_a_result_ends_with_a_signal() -> None:
    def work() -> None:
        with Threads(1) as threads:
            slow = threads.submit(time.sleep, 0.2)
            threads.submit(signal.raise_signal, signal.SIGTERM)  # never begins
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            result_of(slow)

    start = time.monotonic()
    with same_signal_handlers(), pytest.raises(Stopped) as stopped, raised_in_program():
        work()
    assert stopped.value.number == signal.SIGALRM
    assert time.monotonic() - start >= 0.2  # no thread is left running


def test_error_of_a_thread_is_raised_where_its_result_is_asked_for() -> None:
    def fail(number: int) -> int:
        if number == 1:
            raise RunError("number 1")
        return number

    with Threads(2) as threads:
        results = threads.map(fail, range(3))
        assert next(results) == 0
        with pytest.raises(RunError, match="number 1"):
            next(results)
