"""Files that never replace an older one: the log of a run must survive later runs and runs beside it."""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlperf.util.locking import is_file_at


def numbered(path: Path) -> Iterator[Path]:
    """Yield `path`, then the same name with _2, _3, ... before its suffix."""
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}_{number}")


def first_free(path: Path) -> Path:
    """Return the first of the names of `numbered` that no file has, or only an empty one."""
    return next(name for name in numbered(path) if not os.path.lexists(name) or _is_empty(name))


def first_free_together(*paths: Path) -> tuple[Path, ...]:
    """Return the first names of `numbered`, with the same number for all `paths`, none of which exists."""
    names = zip(*map(numbered, paths), strict=True)
    return next(together for together in names if not any(map(os.path.lexists, together)))


def _is_empty(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


class NewFile(io.TextIOWrapper):
    """A text file (UTF-8), open for writing.

    created: whether it did not exist before. kept: bytes that it had before.
    """

    def __init__(self, path: Path, descriptor: int, *, created: bool, kept: int = 0) -> None:
        # The opener makes `name` the path.
        raw = io.FileIO(str(path), "w", opener=lambda name, flags: descriptor)
        super().__init__(io.BufferedWriter(raw), encoding="utf-8")
        self._path = path
        self._created = created
        self._kept = kept

    def discard(self) -> None:
        """Close the file and restore what was there before: nothing, or the file that was continued."""
        descriptor = self.fileno()
        with suppress(OSError):  # such as a full disk
            self.flush()
        if self._created and is_file_at(self._path, descriptor):
            self._path.unlink(missing_ok=True)
        elif stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.ftruncate(descriptor, min(self._kept, os.fstat(descriptor).st_size))
        with suppress(OSError):
            self.close()


def open_new(path: Path, *, continues: bool = False) -> NewFile:
    """Create a text file for writing. FileExistsError if it has content, or another process writes it.

    continues: the content of an existing file is kept, and what is written follows it.

    An existing empty file is used, and character devices and pipes are opened, also through a link. The open file
    is locked, so that of several processes only one gets it. OSError if that is not possible: other links are not
    followed, and a pipe needs a reader.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        created = True
    except FileExistsError:
        descriptor = _open_existing(path, flags | os.O_NONBLOCK)
        created = False
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.set_blocking(descriptor, True)
        return NewFile(path, descriptor, created=False)
    is_ours, kept = created, 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kept = os.fstat(descriptor).st_size
        is_ours = created or continues or kept == 0
    except BlockingIOError:
        is_ours = False
    except OSError:
        pass  # a file system without locks: the file is ours only if this process created it
    if not is_ours:
        os.close(descriptor)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    return NewFile(path, descriptor, created=created, kept=kept)


def write_new(path: Path, content: str) -> None:
    """Write a text file. OSError, FileExistsError included, as of `open_new`; no incomplete file is left."""
    file = open_new(path)
    try:
        file.write(content)
        file.flush()
    except OSError:
        file.discard()
        raise
    file.close()


def _open_existing(path: Path, flags: int) -> int:
    """Open a regular file, or a device or pipe, possibly through a link."""
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "a socket, or a pipe that no process reads", str(path)) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or (stat.S_ISREG(mode) and not os.path.islink(path)):
        return descriptor
    os.close(descriptor)
    reason = "a link to a file; name the file itself" if os.path.islink(path) else "not a file"
    raise OSError(errno.EINVAL, reason, str(path))
