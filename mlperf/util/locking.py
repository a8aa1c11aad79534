"""One process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlperf.util.errors import RunError


@contextmanager
def exclusive(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path`, there only as long. RunError with `refusal` if another process has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except BlockingIOError:
            ours = False
        if not ours:  # locked, or removed in this moment by the one that had it
            raise RunError(f"{path}: {refusal}")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
