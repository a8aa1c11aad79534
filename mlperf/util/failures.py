"""Context managers for failures.

They turn system errors and damaged files into one-line RunErrors, and say how to continue after an interruption.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlperf.util.errors import RunError, UsageError


@contextmanager
def system_failures(path: Path, problem: str) -> Iterator[None]:
    """Turn OSError (such as a full disk) and MemoryError into a RunError "file: problem: cause".

    The file is that of the OSError, otherwise `path`.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{error.filename or path}: {problem}: {error.strerror or error}") from None
    except MemoryError as error:
        raise RunError(f"{path}: {problem}: not enough memory: {_first_line(error)}") from None


@contextmanager
def damage(path: Path, problem: str) -> Iterator[None]:
    """Turn any exception into a RunError "path: problem: cause".

    For reading files with NumPy and zipfile, which raise many undocumented types of exceptions for damaged files.
    """
    try:
        yield
    except (RunError, UsageError):
        raise
    except Exception as error:
        raise RunError(f"{path}: {problem}: {_first_line(error)}") from None


@contextmanager
def continued_by(how: str) -> Iterator[None]:
    """Add `how` to continue to the message that a program prints when a signal ends the block."""
    try:
        yield
    except Exception:
        raise
    except BaseException as stopped:
        stopped.add_note(how)
        raise


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
