"""A lock between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlperf.util.errors import RunError


@contextmanager
def exclusive(path: Path, refusal: str, *, subject: str | None = None) -> Iterator[None]:
    """Hold a lock through the empty file `path`, which exists only while the lock is held.

    Raises RunError "subject: refusal" if another process holds the lock, and RunError if `path` is something else
    than an empty file, which is left as it is. subject: if None, `path`.
    """
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file after this process opened it.
            acquired = is_file_at(path, descriptor)
        except BlockingIOError:
            acquired = False
        if not acquired:
            raise RunError(f"{subject or path}: {refusal}")
        try:
            yield
        finally:
            if is_file_at(path, descriptor):
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def is_file_at(path: Path, descriptor: int) -> bool:
    """Return whether an open file still has the name `path`. Links are not followed."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _open(path: Path) -> int:
    """Open an empty file, which is created if it is missing. RunError if there is something else."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _not_a_lock(path) from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        return descriptor
    os.close(descriptor)
    raise _not_a_lock(path)


def _not_a_lock(path: Path) -> RunError:
    return RunError(f"{path}: is not an empty file, so it is not a lock of this program; move or remove it")
