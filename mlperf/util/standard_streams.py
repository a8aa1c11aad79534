"""Standard streams that are closed, full, or whose reader has ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from mlperf.util.errors import RunError
from mlperf.util.printable import without_controls

EXIT_SIGPIPE = 141


class OutputError(RunError):
    """stdout cannot be written."""


class OutputClosedError(OutputError):
    """The reader of stdout, such as `head`, has ended."""

    exit_status = EXIT_SIGPIPE


def open_missing_streams() -> None:
    """Open the null device in place of a closed stdin, stdout or stderr (`>&-`).

    Otherwise the next file that the program opens would get its descriptor, and the output of libraries. Messages
    for a missing stderr would be printed to stdout.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


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
def checked_output() -> Iterator[None]:
    """Within the block and at its end, failures of stdout are OutputErrors."""
    with redirect_stdout(_Output(sys.stdout)):
        try:
            yield
        except SystemExit:  # of --help
            sys.stdout.flush()
            raise
        except BaseException:
            with suppress(OutputError):
                sys.stdout.flush()
            raise
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


class _Messages:
    """stderr that drops what cannot be written: there is nowhere to report it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _discard(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def expendable_messages() -> Iterator[None]:
    """Within the block, failures of stderr, such as those of a reader that has ended, are ignored."""
    with redirect_stderr(_Messages(sys.stderr)):
        try:
            yield
        finally:
            sys.stderr.flush()


def _discard(stream: TextIO) -> None:
    """Send what is left in the stream to the null device, so that the interpreter can flush it at its end."""
    with suppress(OSError, ValueError):  # not a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
