"""Append rows to a binary file, with resuming after an interruption."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

from mlperf.data.schema import CRITEO, Rows, RowSchema
from mlperf.util.files import write_fully


class RowFile:
    """A binary file to which rows are appended.

    rows, checksum: number of rows in the file and the CRC-32 of their bytes. If `rows` is given, the file of an
    interrupted process is resumed: it is truncated to that many rows. schema: layout of a row.
    """

    def __init__(self, path: Path, rows: int = 0, checksum: int = 0, schema: RowSchema = CRITEO) -> None:
        self.rows = rows
        self.checksum = checksum
        self._file = open_truncated(path, rows * schema.row_bytes)

    def append(self, rows: Rows) -> None:
        """Append rows, int32 [N, columns], C-contiguous."""
        write_fully(self._file, rows.data)
        self.checksum = zlib.crc32(rows.data, self.checksum)
        self.rows += len(rows)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def open_truncated(path: Path, size: int) -> int:
    """Truncate a file to `size` bytes and open it for appending; return the file descriptor.

    Raises OSError if the file is shorter, or is a link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    if os.fstat(descriptor).st_size < size:
        os.close(descriptor)
        raise OSError(errno.EIO, f"shorter than the {size} bytes that the saved state describes", str(path))
    os.ftruncate(descriptor, size)
    os.lseek(descriptor, size, os.SEEK_SET)
    return descriptor
