"""Entry-point wrapper of all programs: logging to stderr, errors and signals, exit status."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from mlperf.util.errors import RunError, UsageError
from mlperf.util.printable import one_line, without_controls
from mlperf.util.signals import exit_status, raised_in_program, reason

MIN_PYTHON = (3, 11)  # same as requires-python in pyproject.toml, which does not apply to an uninstalled checkout
EXIT_SIGPIPE = 141

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


class OutputError(RunError):
    """stdout cannot be written."""


class OutputClosedError(OutputError):
    """The reader of stdout, such as `head`, has ended."""

    exit_status = EXIT_SIGPIPE


class _Output:
    """stdout without control characters, which may come from a file that is being processed.

    Failures are OutputErrors: as OSErrors, they would be blamed on that file.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _output_failures(self._stream):
            return self._stream.write(without_controls(text))

    def flush(self) -> None:
        with _output_failures(self._stream):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _checked_output() -> Iterator[None]:
    """Within the block, failures of stdout are OutputErrors. Without stdout (`>&-`), nothing is printed."""
    if sys.stdout is None:
        yield
        return
    with redirect_stdout(_Output(sys.stdout)):
        yield
        sys.stdout.flush()


@contextmanager
def _output_failures(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _discard(stream)
        raise OutputClosedError("the reader of the output has ended") from None
    except OSError as error:
        _discard(stream)
        raise OutputError(f"standard output: cannot be written: {error.strerror or error}") from None


def _discard(stream: TextIO) -> None:
    """Send what is left in the stream to the null device, so that the interpreter can flush it at its end."""
    with suppress(OSError, ValueError):  # not a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def run_program(name: str, work: Callable[[], int]) -> int:
    """Return the result of `work`, or the exit status of an error or signal after printing it as one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like stderr; avoids UnicodeEncodeError
    try:
        if sys.version_info < MIN_PYTHON:
            raise RunError(f"needs Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer; this is {sys.executable}")
        with raised_in_program(), messages_on_stderr(), _checked_output():
            return work()
    except OutputClosedError as closed:
        print(f"{name}: {closed}", file=sys.stderr)
        return closed.exit_status
    except (UsageError, RunError) as error:
        print(f"{name}: error: {one_line(error)}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _CORE_PACKAGES:
            raise
        print(
            f"{name}: error: {package} is not installed in this Python ({sys.executable}): run tools/setup.sh "
            "and use .venv/bin/python, or pip install -r requirements.txt",
            file=sys.stderr,
        )
        return RunError.exit_status
    except KeyboardInterrupt as stopped:
        notes = getattr(stopped, "__notes__", [])  # how to continue, added where the signal arrived
        print(one_line("; ".join([f"{name}: {reason(stopped)}", *notes])), file=sys.stderr)
        return exit_status(stopped)
