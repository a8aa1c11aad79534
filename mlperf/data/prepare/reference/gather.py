"""Write the training days of the reference, bucket by bucket, from the rows that are in buckets of positions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.extents import EXTENT_ROWS, Extents, read_rows_at
from mlperf.data.prepare.reference.npy_files import KINDS, DayWriter, NpyFile, file_checksum
from mlperf.data.schema import CRITEO, Rows
from mlperf.util.parallel import Stages, run_in_order
from mlperf.util.progress import Progress

_FIRST_ID = CRITEO.first_id  # constants of the compiled loop
_COLUMNS = CRITEO.columns
_MAX_THREADS = 8  # each has the arrays of a bucket in memory, and more are not faster on one disk

Int32s = npt.NDArray[np.int32]


class Gather:
    """Writes the files of the training days.

    spill: file of a PositionScatter with buckets of 2^shift rows. files: of each training day.
    checksums: for each bucket, the CRC-32 of its parts of the files, day by day; None if it is not yet written.
    """

    def __init__(
        self,
        spill: Path,
        folder: Path,
        files: Sequence[Sequence[NpyFile]],
        shift: int,
        checksums: Sequence[list[int] | None] | None,
    ) -> None:
        self._files = files
        self._ends = np.cumsum([day[0].rows for day in files])
        self._rows = int(self._ends[-1])
        self._bucket_rows = 1 << shift
        buckets = ((self._rows - 1) >> shift) + 1
        self.checksums: list[list[int] | None] = [None] * buckets if checksums is None else list(checksums)
        self._extents = Extents.read(spill, buckets)
        self._spill = os.open(spill, os.O_RDONLY)
        self._days = [DayWriter(folder, day) for day in files]
        done = sum(self._size(bucket) for bucket, parts in enumerate(self.checksums) if parts is not None)
        row_bytes = CRITEO.row_bytes
        self._progress = Progress("writing days", self._rows * row_bytes, done * row_bytes, done)

    def remaining(self) -> Iterator[int]:
        """Return the buckets that are not yet written."""
        return (bucket for bucket, parts in enumerate(self.checksums) if parts is None)

    def write(self, buckets: Iterator[int], threads: int) -> None:
        """Write buckets, each with one thread."""

        def make_worker(stages: Stages) -> _BucketWriter:
            return _BucketWriter(self, stages)

        run_in_order(buckets, make_worker, threads=min(threads, _MAX_THREADS), stages=1)

    def close(self, *, finished: bool) -> None:
        """Close the files, and end the progress report."""
        self._progress.close(finished=finished)
        os.close(self._spill)
        for day in self._days:
            day.close()

    def file_checksums(self) -> dict[str, int]:
        """Return the CRC-32 of each file. All buckets must be written."""
        parts: list[list[list[tuple[int, int]]]] = [[[] for _ in KINDS] for _ in self._files]
        for bucket, checksums in enumerate(self.checksums):
            assert checksums is not None
            remaining = iter(checksums)
            for day, start, stop in self.parts(bucket):
                for kind in parts[day]:
                    kind.append((stop - start, next(remaining)))
        return {
            file.name: file_checksum(file, kind)
            for day, kinds in zip(self._files, parts, strict=True)
            for file, kind in zip(day, kinds, strict=True)
        }

    def parts(self, bucket: int) -> Iterator[tuple[int, int, int]]:
        """Yield each day that has rows of a bucket, and where in the bucket they begin and end."""
        start = bucket * self._bucket_rows
        stop = start + self._size(bucket)
        for day in range(int(np.searchsorted(self._ends, start, side="right")), len(self._ends)):
            end = min(stop, int(self._ends[day]))
            if end > start:
                yield day, start - bucket * self._bucket_rows, end - bucket * self._bucket_rows
            start = max(start, end)
            if start == stop:
                return

    def read(self, bucket: int, extent: Rows, arrays: Sequence[Int32s]) -> None:
        """Fill the arrays of all kinds with the rows of a bucket. extent: memory for the rows of an extent."""
        for position, count in self._extents.of_bucket(bucket):
            read_rows_at(self._spill, extent[:count], position)
            _place(extent[:count], *arrays)

    def store(self, bucket: int, arrays: Sequence[Int32s]) -> None:
        """Write the arrays of a bucket, as `read` filled them."""
        checksums = []
        for day, start, stop in self.parts(bucket):
            first = bucket * self._bucket_rows + start - int(self._ends[day]) + self._files[day][0].rows
            checksums += self._days[day].write(first, [array[start:stop] for array in arrays])
        self.checksums[bucket] = checksums
        rows = self._size(bucket)
        self._progress.add(rows * CRITEO.row_bytes, rows)

    def arrays(self) -> list[Int32s]:
        """Return memory for the rows of a bucket: an array of each kind, int32 [rows, columns]."""
        return [np.empty((min(self._bucket_rows, self._rows), columns), np.int32) for columns in KINDS.values()]

    def _size(self, bucket: int) -> int:
        return min(self._bucket_rows, self._rows - bucket * self._bucket_rows)


class _BucketWriter:
    """Writes buckets on one thread and reuses its memory. The kernel serializes writes: they are a stage."""

    def __init__(self, gather: Gather, stages: Stages) -> None:
        self._gather = gather
        self._stages = stages
        self._extent = np.empty((EXTENT_ROWS, CRITEO.columns), np.int32)
        self._arrays = gather.arrays()

    def __call__(self, number: int, bucket: int) -> None:
        self._gather.read(bucket, self._extent, self._arrays)
        with self._stages.turn(0, number):
            self._gather.store(bucket, self._arrays)


@numba.njit("(int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[:, ::1])", nogil=True, cache=True)
def _place(rows: Rows, dense: Int32s, sparse: Int32s, labels: Int32s) -> None:
    """Copy rows to their positions, which are in column 0 above the label."""
    for row in range(len(rows)):
        position = rows[row, 0] >> 1
        labels[position, 0] = rows[row, 0] & 1
        for column in range(1, _FIRST_ID):
            dense[position, column - 1] = rows[row, column]
        for column in range(_FIRST_ID, _COLUMNS):
            sparse[position, column - _FIRST_ID] = rows[row, column]
