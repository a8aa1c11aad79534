"""Rows in buckets on disk: the rows of a bucket are appended in any order and read together later.

The rows of all buckets are in one file, in extents of up to 400 rows of one bucket. An index file lists them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.row_file import open_truncated
from mlperf.data.schema import CRITEO, Rows, RowSchema
from mlperf.util.files import read_fully_at, write_fully

EXTENT_BYTES = 8  # index file entry: two int32, the bucket and the number of rows
# 64 KB: large enough for an efficient write, small enough to keep one for each bucket in memory
EXTENT_ROWS = 400


def index_path(path: Path) -> Path:
    """Return the path of the index file, which holds the bucket and the number of rows of each extent."""
    return path.with_name(f"{path.name}.index")


class ExtentWriter:
    """Writes the file and its index. A subclass decides which row goes to which bucket.

    rows, extents: contents of the files. If given, the files of an interrupted process are resumed: they are
    truncated to these rows and extents. schema: layout of a row.
    """

    def __init__(
        self, path: Path, buckets: int, *, rows: int = 0, extents: int = 0, schema: RowSchema = CRITEO
    ) -> None:
        self.rows = rows
        self.extents = extents
        self.buffers = np.empty((buckets, EXTENT_ROWS, schema.columns), np.int32)
        self.fill = np.zeros(buckets, np.int64)
        self._file = open_truncated(path, rows * schema.row_bytes)
        self._index = open_truncated(index_path(path), extents * EXTENT_BYTES)

    def write_full(self, first: int, stop: int) -> None:
        """Write the buffers of the buckets from `first` to `stop` that are full."""
        for bucket in np.flatnonzero(self.fill[first:stop] == EXTENT_ROWS):
            self._write(first + int(bucket))

    def flush(self) -> None:
        """Write all rows that are still in memory, as shorter extents."""
        for bucket in np.flatnonzero(self.fill):
            self._write(int(bucket))

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._index)

    def _write(self, bucket: int) -> None:
        count = int(self.fill[bucket])
        write_fully(self._file, self.buffers[bucket, :count].data)
        write_fully(self._index, np.array([bucket, count], np.int32).data)
        self.fill[bucket] = 0
        self.extents += 1


@dataclass(frozen=True)
class Extents:
    """The extents of a file, sorted by bucket.

    rows: number of rows of each extent. positions: row of the file at which it begins.
    first: first[b] is the number of the first extent of bucket b.
    """

    rows: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]

    @classmethod
    def read(cls, path: Path, buckets: int) -> Extents:
        """Read the index of a file."""
        bucket, rows = np.fromfile(index_path(path), np.int32).reshape(-1, 2).astype(np.int64).T
        order = np.argsort(bucket, kind="stable")
        positions = np.cumsum(rows) - rows
        return cls(rows[order], positions[order], np.searchsorted(bucket[order], np.arange(buckets + 1)))

    def bucket_rows(self) -> npt.NDArray[np.int64]:
        """Return the number of rows of each bucket."""
        sums = np.concatenate([[0], np.cumsum(self.rows)])
        return np.diff(sums[self.first])

    def of_bucket(self, bucket: int) -> Iterator[tuple[int, int]]:
        """Return the position and the number of rows of each extent of a bucket, in order of the file."""
        extents = slice(int(self.first[bucket]), int(self.first[bucket + 1]))
        return zip(self.positions[extents].tolist(), self.rows[extents].tolist(), strict=True)


def read_rows_at(descriptor: int, rows: Rows, position: int) -> None:
    """Fill `rows`, int32 [N, columns], from row `position` of a temporary file on. OSError if it ends early."""
    row_bytes = rows.shape[1] * rows.itemsize
    if (count := read_fully_at(descriptor, rows.data, position * row_bytes)) < rows.nbytes:
        raise OSError(f"temporary file ends {rows.nbytes - count} bytes early")
