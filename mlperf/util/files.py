"""Read and write files completely.

A file is written under a temporary name and renamed when it is complete and on disk, so a crash never leaves an
incomplete file under the final name. Reads and writes are repeated until every byte has been transferred, because
one system call may transfer fewer. Buffers are C-contiguous, of any item type; offsets and counts are in bytes.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from mlperf.util.temporary import new_temporary


class Readable(Protocol):
    """A binary file or stream, such as an open gzip file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read up to `len(buffer)` bytes into `buffer` and return their number, 0 at the end."""
        ...


@contextmanager
def atomic_file(path: Path, temporary_folder: Path | None = None) -> Iterator[BinaryIO]:
    """Open a new binary file, also for reading, that replaces `path` when the `with` block ends without an error.

    Until then the file has a unique temporary name, in `temporary_folder` (on the same file system) or beside
    `path`. If the block or the replacement fails, the temporary file is removed and `path` is left unchanged. A
    killed process leaves the temporary file behind, which the next call for the same path removes, but never an
    incomplete `path`. The new file has the permissions of the older one, and its owner if that is permitted.
    """
    with new_temporary(path, temporary_folder) as (temporary, file):
        _copy_permissions(path, file.fileno())
        yield file
        file.flush()
        move_into_place(temporary, path)


def write_atomically(path: Path, content: str | bytes, temporary_folder: Path | None = None) -> None:
    """Write `content`, text as UTF-8, to `path` as `atomic_file` does."""
    with atomic_file(path, temporary_folder) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _copy_permissions(path: Path, descriptor: int) -> None:
    try:
        older, new = os.lstat(path), os.fstat(descriptor)
    except OSError:
        return
    if not stat.S_ISREG(older.st_mode):
        return
    with suppress(OSError):  # without the permission to change the owner
        if (older.st_uid, older.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(descriptor, older.st_uid, older.st_gid)
    with suppress(OSError):  # a file system without permissions
        os.fchmod(descriptor, stat.S_IMODE(older.st_mode) & 0o777)


def move_into_place(source: Path, target: Path) -> None:
    """Flush `source` to the disk and rename it to `target`, on the same file system, replacing any older file.

    FileExistsError if `target` is a link, or a device or pipe such as /dev/null, which must not be replaced.
    """
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISLNK(mode):
        raise FileExistsError(errno.EEXIST, "a link, which is not replaced by a file", str(target))
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FileExistsError(errno.EEXIST, "a device or pipe, which is not replaced by a file", str(target))
    sync(source)
    os.replace(source, target)
    sync(target.parent)


def has_content(path: Path) -> bool:
    """Return whether `path` is a file that is not empty, so that replacing it would lose something."""
    return path.is_file() and path.stat().st_size > 0


def sync(path: Path) -> None:
    """Flush a file to the disk; for a folder, the renames in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path, *, allow_pipes: bool = False) -> io.FileIO:
    """Open a file for unbuffered reading. OSError if it cannot be opened or is a folder, pipe, socket or device.

    Opening a pipe like a file would wait for a writer, and reading some devices never ends. allow_pipes: the pipes
    of a shell, `<(command)` and /dev/stdin, are opened; they have no name in a folder and do not wait.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise
        raise _not_regular(path) from None
    mode = os.fstat(descriptor).st_mode
    is_pipe = allow_pipes and stat.S_ISFIFO(mode) and _has_no_name(descriptor)
    if is_pipe:
        os.set_blocking(descriptor, True)
    if stat.S_ISREG(mode) or is_pipe:
        return io.FileIO(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _not_regular(path)


def _has_no_name(descriptor: int) -> bool:
    """Return whether an open pipe is not in a folder."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:")
    except OSError:  # a system without /proc
        return False


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, max_bytes: int | None = None, *, allow_pipes: bool = False) -> bytes:
    """Return the content of a file. OSError as from `open_regular`, or if it has more than `max_bytes`."""
    with open_regular(path, allow_pipes=allow_pipes) as file:
        if max_bytes is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"has {size:,} bytes; at most {max_bytes:,} are expected", str(path))
        content = io.BufferedReader(file).read(max_bytes + 1)
        if len(content) > max_bytes:  # of a pipe, or of a file that grows
            raise OSError(errno.EFBIG, f"has more than {max_bytes:,} bytes", str(path))
        return content


def read_fully(file: Readable, buffer: memoryview) -> int:
    """Fill `buffer` from a file's position. Return the number of bytes read, fewer only at the end of the file."""
    return _transfer(buffer, lambda rest, done: file.readinto(rest))


def read_fully_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` from byte `offset` of a file. Return the number of bytes read, fewer only at its end."""
    return _transfer(buffer, lambda rest, done: os.preadv(descriptor, [rest], offset + done))


def write_fully(descriptor: int, content: memoryview) -> None:
    """Write all of `content` at a file's position."""
    _transfer(content, lambda rest, done: os.write(descriptor, rest))


def write_fully_at(descriptor: int, content: memoryview, offset: int) -> None:
    """Write all of `content` at byte `offset` of a file."""
    _transfer(content, lambda rest, done: os.pwrite(descriptor, rest, offset + done))


def _transfer(buffer: memoryview, transfer: Callable[[memoryview, int], int | None]) -> int:
    """Call `transfer` with the rest of the buffer and the bytes done, until all are done or it returns 0."""
    if buffer.nbytes == 0:  # an empty array cannot be cast to bytes
        return 0
    content, done = buffer.cast("B"), 0
    while done < len(content) and (count := transfer(content[done:], done)):
        done += count
    return done
