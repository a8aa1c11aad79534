"""A file that must not change while it is read."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path

from mlperf.util.errors import RunError
from mlperf.util.files import open_regular, read_fully_at


@dataclass(frozen=True)
class FileStatus:
    """What identifies the contents of a file: device and inode, size in bytes, times in nanoseconds.

    changed_ns: time of the last change of the contents or of the properties in `properties`: number of links,
    permissions and owner. Programs can set modified_ns, but not changed_ns.
    """

    file: tuple[int, int]
    size: int
    modified_ns: int
    changed_ns: int
    properties: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: Path) -> FileStatus:
        """Return the status of a file. OSError if there is none."""
        return cls.of_stat(os.stat(path))

    @classmethod
    def of_stat(cls, status: os.stat_result) -> FileStatus:
        """Return the status of a file from the result of `os.stat` or `os.fstat`."""
        return cls(
            (status.st_dev, status.st_ino),
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            (status.st_nlink, status.st_mode, status.st_uid, status.st_gid),
        )

    def difference(self, now: FileStatus) -> str | None:
        """Return how the file has changed since, None if its contents are the same.

        A new name, removal, or other permissions change `changed_ns`, too, but not the contents.
        """
        same_times = (now.modified_ns, now.changed_ns) == (self.modified_ns, self.changed_ns)
        if now.file != self.file and not same_times:  # some network file systems number their files anew
            return "it was replaced by another file"
        if now.size != self.size:
            return f"it had {self.size} bytes and has {now.size} now"
        if now.modified_ns != self.modified_ns:
            return "it was written to"
        if now.changed_ns != self.changed_ns and now.properties == self.properties:
            return "it was renamed, or written to with its modification time restored"
        return None


class WatchedFile:
    """A file, open from now on, whose changes are errors.

    A file that replaces it under the same name is not read. The file is closed when the last reader has dropped
    this object: readers may be threads that are still reading when a run ends.

    expected: status of the file when it was checked.
    """

    status: FileStatus

    def __init__(self, path: Path, expected: FileStatus | None = None) -> None:
        """Open the file. RunError if that is not possible, or if it has changed since it was checked."""
        self.path = path
        try:
            file = open_regular(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        self.descriptor = file.fileno()
        weakref.finalize(self, file.close)
        self.status = FileStatus.of_stat(os.fstat(self.descriptor))
        if expected is not None:
            self._compare(expected, self.status, "before it was opened")

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.status.size

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from byte `offset`. Return the number of bytes read, fewer only at the end of the file.

        RunError if the file has changed since it was opened, or cannot be read.
        """
        try:
            count = read_fully_at(self.descriptor, buffer, offset)
            self.check()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read at byte {offset}: {error.strerror}") from None
        return count

    def check(self) -> None:
        """Raise RunError if the file has changed since it was opened."""
        found = os.fstat(self.descriptor)
        if found.st_ctime_ns != self.status.changed_ns or found.st_mtime_ns != self.status.modified_ns:
            status = FileStatus.of_stat(found)
            self._compare(self.status, status, "while it was read")
            self.status = status

    def _compare(self, before: FileStatus, now: FileStatus, when: str) -> None:
        difference = before.difference(now)
        if difference is not None:
            raise RunError(f"{self.path}: changed {when}: {difference}")
