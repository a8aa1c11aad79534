"""Failures of a run of several processes: what an exception means, and what the user reads."""

from __future__ import annotations

import torch.distributed as dist

from mlperf.distributed.peers import Failure
from mlperf.util.errors import RunError, UsageError, set_origin
from mlperf.util.printable import one_line
from mlperf.util.signals import Stopped, reason

# In the messages of collective operations whose peer has ended; they are RuntimeErrors.
_COLLECTIVES = ("gloo", "NCCL", "nccl", "Connection closed by peer", "Connection reset by peer")


def is_of_connection(error: BaseException) -> bool:
    """Return whether an exception says that another process cannot be reached, or was raised because of that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, dist.DistError):
            return True
        if isinstance(cause, RuntimeError) and _is_of_collective(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_of_collective(text: str) -> bool:
    return any(part in text for part in _COLLECTIVES)


def kind_of(error: BaseException) -> str:
    """Return the kind of the failure of this process, as in `Failure`."""
    if isinstance(error, UsageError):
        return "usage"
    return "error" if isinstance(error, RunError | OSError | ImportError) else "bug"


def error_instead(error: BaseException, failure: Failure, *, is_shared: bool) -> BaseException:
    """Return the exception to report for `failure`. error: that of this process. is_shared: all have the same."""
    reported: BaseException
    if failure.kind == "signal":
        reported = Stopped(int(failure.text))
        for note in getattr(error, "__notes__", []):
            if not _is_of_collective(note):  # the signal may have come while the connections were lost
                reported.add_note(note)
    elif failure.kind == "lost" or is_of_connection(error):
        reported = RunError(failure.text)
    else:
        reported = error
    if failure.rank >= 0 and not is_shared:
        set_origin(reported, f"rank {failure.rank}")
    return reported


def line_of(program: str, failure: Failure, notes: list[str]) -> str:
    """Return the message for a failure. notes: how to continue."""
    where = "" if failure.rank < 0 else f"rank {failure.rank}: "
    what = reason(Stopped(int(failure.text))) if failure.kind == "signal" else f"error: {failure.text}"
    return one_line("; ".join([f"{program}: {where}{what}", *notes]))
