"""Failures of the system and damaged files -> one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlperf.util.errors import RunError


@contextmanager
def system_failures(path: Path, what: str) -> Iterator[None]:
    """Turn an error of the system (a full disk) and a lack of memory into a RunError: file, what, cause."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{error.filename or path}: {what}: {error.strerror or error}") from None
    except MemoryError as error:
        raise RunError(f"{path}: {what}: not enough memory: {_one_line(error)}") from None


@contextmanager
def damage(path: Path, what: str) -> Iterator[None]:
    """Turn whatever reading a file raises into a RunError: file, what, cause.

    For NumPy's and zipfile's readers: they answer damage with a dozen kinds of exceptions, and name no list.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{path}: {what}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
