"""A lock between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlperf.util.errors import RunError


@contextmanager
def exclusive(path: Path, refusal: str, *, subject: str | None = None) -> Iterator[None]:
    """Hold a lock through the file `path`, which exists only while the lock is held.

    Raises RunError "subject: refusal" if another process holds the lock. subject: if None, `path`.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file after this process opened it.
            acquired = path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except BlockingIOError:
            acquired = False
        if not acquired:
            raise RunError(f"{subject or path}: {refusal}")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
