"""Entry-point wrapper of all programs: logging to stderr, errors and signals, exit status."""

from __future__ import annotations

import errno
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlperf.util.errors import EndedQuietlyError, RunError, UsageError, origin_of
from mlperf.util.printable import one_line
from mlperf.util.signals import exit_status, handlers_of_caller, raised_in_program, reason
from mlperf.util.standard_streams import (
    OutputClosedError,
    checked_output,
    expendable_messages,
    open_missing_streams,
)

MIN_PYTHON = (3, 11)  # same as requires-python in pyproject.toml, which does not apply to an uninstalled checkout

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)

# Import names of the packages in requirements.txt.
_CORE_PACKAGES = ("torch", "numpy", "numba", "sklearn", "mlperf_logging", "tqdm")


class _StderrHandler(logging.Handler):
    """Writes messages without a prefix to the current `sys.stderr`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        print(one_line(self.format(record)), file=sys.stderr, flush=True)


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Write this project's log messages to stderr exactly once, regardless of the root logger's handlers."""
    logger = logging.getLogger("mlperf")
    level, propagate, handler = logger.level, logger.propagate, _StderrHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def program_name(tool: str) -> str:
    """Return the program name for messages: the installed script (dlrm-...) if it was used, otherwise `tool`."""
    typed = Path(sys.argv[0]).name
    return typed if typed.startswith("dlrm-") else tool


def run_program(name: str, work: Callable[[], int | None]) -> int:
    """Return the result of `work`, or the exit status of an error or signal after printing it as one line.

    `work` returns the exit status, or None for 0. A closed stdin, stdout or stderr is replaced by the null device.
    The program ends if stdout cannot be written, with status 141 if its reader has ended. Messages that stderr
    does not take are lost.
    """
    open_missing_streams()
    with expendable_messages(), handlers_of_caller():
        return _run_program(name, work)


def _run_program(name: str, work: Callable[[], int | None]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like stderr; avoids UnicodeEncodeError
    try:
        if sys.version_info < MIN_PYTHON:
            raise RunError(f"needs Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer; this is {sys.executable}")
        with raised_in_program(), messages_on_stderr(), checked_output():
            return work() or 0
    except EndedQuietlyError as ended:
        return ended.exit_status
    except BaseException as error:
        if (reported := _message_and_status(error)) is None:
            raise
        message, status = reported
        print(f"{name}: {origin_of(error)}{message}", file=sys.stderr)
        return status


def _message_and_status(error: BaseException) -> tuple[str, int] | None:
    """Return the message of an expected failure or of a signal, and the exit status; None for a bug."""
    if isinstance(error, OutputClosedError | UsageError | RunError):
        text = str(error) if isinstance(error, OutputClosedError) else f"error: {one_line(error)}"
        return text, error.exit_status
    if isinstance(error, KeyboardInterrupt):
        notes = getattr(error, "__notes__", [])  # how to continue, added where the signal arrived
        return one_line("; ".join([reason(error), *notes])), exit_status(error)
    if isinstance(error, OSError):
        # of a name that cannot be looked up, or of a full disk on which numba keeps its cache
        if error.filename is None and error.errno not in _DISK_ERRORS:
            return None
        where = "a file cannot be read or written" if error.filename is None else error.filename
        return f"error: {one_line(f'{where}: {error.strerror}')}", RunError.exit_status
    if isinstance(error, ModuleNotFoundError) and (package := _core_package(error)) is not None:
        how = "run tools/setup.sh and use .venv/bin/python, or pip install -r requirements.txt"
        return (
            f"error: {package} is not installed in this Python ({sys.executable}): {how}",
            RunError.exit_status,
        )
    return None


def _core_package(error: ModuleNotFoundError) -> str | None:
    """Return the import name of the missing package if this program cannot run without it."""
    # importlib.metadata names a package as it is installed: mlperf-logging instead of mlperf_logging.
    package = (error.name or "").partition(".")[0].replace("-", "_")
    return package if package in _CORE_PACKAGES else None
