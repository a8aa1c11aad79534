"""What a process sets for itself because others run on its node: threads, messages and output."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

from mlperf.distributed.launchers import Launch, find_launch
from mlperf.util.errors import EndedQuietlyError, UsageError
from mlperf.util.signals import exit_status, ignore_signals
from mlperf.util.threads import available_cores


def choose_threads(launch: Launch) -> None:
    """Divide the cores among the processes of this node. Must be called before torch and numba are imported.

    OMP_NUM_THREADS counts if the user has set it. torchrun sets it to 1 if it is not set; that is replaced.
    """
    threads = str(_own_cores(launch))
    if "OMP_NUM_THREADS" not in os.environ or _is_set_by_torchrun():
        os.environ["OMP_NUM_THREADS"] = threads
    os.environ.setdefault("NUMBA_NUM_THREADS", threads)


def hide_messages_of_torch() -> None:
    """Hide warnings that C++ code of torch prints when a connection ends. Must be called before its import."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


@contextmanager
def output_of_first(launch: Launch) -> Iterator[None]:
    """In all processes but the first, drop what is printed, and messages that are no errors."""
    if launch.rank == 0:
        yield
        return
    logging.getLogger("mlperf").setLevel(logging.ERROR)
    with open(os.devnull, "w", encoding="utf-8") as null, redirect_stdout(null):
        yield


@contextmanager
def output_of_first_if_known() -> Iterator[None]:
    """As `output_of_first`, if the variables state which process is the first; otherwise print in this one."""
    try:
        launch = find_launch()
    except UsageError:
        launch = None
    with nullcontext() if launch is None else output_of_first(launch):
        yield


@contextmanager
def signals_of_first(launch: Launch) -> Iterator[None]:
    """In all processes but the first, end without a message if a signal ends the block.

    For the time until the processes are connected; then one of them reports a signal.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        if launch.rank == 0:
            raise
        ignore_signals()
        raise EndedQuietlyError(exit_status(stopped)) from None


def _own_cores(launch: Launch) -> int:
    """Return the number of cores for this process. A launcher may have bound it to cores of its own."""
    cores = available_cores()
    try:
        is_bound = os.sched_getaffinity(os.getppid()) != os.sched_getaffinity(0)
    except OSError:
        is_bound = False
    return cores if is_bound else max(1, cores // (launch.local_size or 1))


def _is_set_by_torchrun() -> bool:
    """Return whether OMP_NUM_THREADS was not in the environment in which torchrun was started."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or sys.platform != "linux":
        return False
    try:
        started_with = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not any(variable.startswith(b"OMP_NUM_THREADS=") for variable in started_with)
