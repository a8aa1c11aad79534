"""Write a file line by line, so that a write that fails leaves complete lines only."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from mlperf.util.files import write_fully


class WholeLines:
    """Writes lines to an open file, without a buffer. A line that cannot be written whole is removed.

    Lines are added after what is in the file. A pipe or device is not cut.
    """

    def __init__(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self._descriptor = descriptor
        self._is_regular = stat.S_ISREG(status.st_mode)
        self._written = status.st_size if self._is_regular else 0  # bytes in complete lines
        self._last_line = 0  # bytes

    def continue_after(self, size: int) -> None:
        """Remove what follows the first `size` bytes of the file, such as a line that a kill has cut."""
        self._cut(size)
        self._written = size

    def write(self, line: str) -> None:
        """Write a line, which is given without its end. OSError if that fails; then it is removed."""
        content = f"{line}\n".encode()
        try:
            write_fully(self._descriptor, memoryview(content))
        except OSError:
            self._cut(self._written)
            raise
        self._written += len(content)
        self._last_line = len(content)

    def sync(self) -> None:
        """Flush the file to the disk. OSError if that fails; then the last line is removed."""
        if not self._is_regular:
            return
        try:
            os.fsync(self._descriptor)
        except OSError:
            self._cut(self._written - self._last_line)
            raise

    def _cut(self, size: int) -> None:
        if self._is_regular:
            with suppress(OSError):
                os.ftruncate(self._descriptor, size)
                os.lseek(self._descriptor, size, os.SEEK_SET)
