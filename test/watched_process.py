"""A process that watches others, for the tests of the watch."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from mlperf.distributed.launchers import Launch
from mlperf.distributed.store import connect
from mlperf.distributed.watch import Limits, closed_if_abandoned, watched
from mlperf.util.errors import RunError, UsageError
from mlperf.util.program import run_program

LIMITS = Limits(silent=2.0, together=1.0, unwinding=1.5)


def run_watched(case: str, rank: int, size: int, port: int, output: Path) -> None:
    """Run one process. It prints "ready" when all are there, and "closed" if the watch closes its files.

    case: what the last rank does; the others work until they are ended, those of a "blocked" case in an operation
    that handles no signal. output: path of the files .out and .err.
    """
    for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        file = os.open(output.with_suffix(suffix), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream.fileno())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    launch = Launch("test", rank, size, rank, size, "localhost", port)

    def close(has_failed: bool) -> str | None:
        print("closed", flush=True)
        return None if has_failed else "the same command continues"

    def work() -> None:
        with watched(launch, "program", LIMITS) as watch, closed_if_abandoned(close):
            watch.wait_for_all()
            print("ready", flush=True)
            if case == "finish":
                time.sleep(rank / 4)
                return
            if rank == size - 1 or case == "same error":
                _fail(case)
            if case.startswith("blocked"):
                connect(launch).wait(["never set"], timedelta(seconds=60))
            time.sleep(60)

    status = run_program("program", work)
    sys.stdout.flush()
    os._exit(status)


def _fail(case: str) -> None:
    if case == "error":
        raise RunError("file.bin: row 7 is wrong")
    if case == "same error":
        raise UsageError("--flag=x: is wrong")
    if case == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if case == "blocked, silent":
        os.kill(os.getpid(), signal.SIGSTOP)
