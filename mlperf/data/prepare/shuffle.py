"""A uniform random permutation of more rows than fit in memory (Rao 1961, Sandelius 1962).

Each row goes to a random bucket, each bucket is permuted in memory, and the buckets are written one after another.
Every permutation is equally likely. The random numbers depend on the seed and the position of a row, not on the
thread that handles it.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.extents import Extents, ExtentWriter, read_rows_at
from mlperf.data.prepare.splitmix64 import splitmix64
from mlperf.data.schema import CRITEO, Rows, RowSchema
from mlperf.util.compiled_sources import compiled_with
from mlperf.util.crc32 import combine_crc32
from mlperf.util.files import write_fully_at
from mlperf.util.parallel import Stages, run_in_order

MAX_BUCKET_BYTES = 128 << 20  # approximately; each thread has one bucket in memory
SMALL_BUCKET_BYTES = 8 << 20  # fits in the CPU cache; used up to _MANY_BUCKETS buckets
_MANY_BUCKETS = 256

_GATHER_ROWS = 1 << 11  # fits in the CPU cache between gather and write
# Each thread needs memory for a little more than a bucket, and more threads are not faster on one disk.
_MAX_THREADS = 8


def bucket_counts(expected_bytes: Sequence[int]) -> list[int]:
    """Return the number of buckets of each group of rows, from the sizes of the groups. Groups do not mix."""
    return [
        max(1, -(-size // MAX_BUCKET_BYTES), min(_MANY_BUCKETS, -(-size // SMALL_BUCKET_BYTES)))
        for size in expected_bytes
    ]


class SpillFile(ExtentWriter):
    """Distributes rows at random among buckets.

    buckets: number of buckets of each group. rows, extents, schema: as in ExtentWriter.
    """

    def __init__(
        self,
        path: Path,
        buckets: Sequence[int],
        seed: int,
        *,
        rows: int = 0,
        extents: int = 0,
        schema: RowSchema = CRITEO,
    ) -> None:
        self._buckets = buckets
        self._first_buckets = np.cumsum([0, *buckets])
        self._seed = seed
        super().__init__(path, int(self._first_buckets[-1]), rows=rows, extents=extents, schema=schema)

    def append(self, rows: Rows, group: int) -> None:
        """Distribute the next rows, int32 [N, columns], of a group."""
        key, first, buckets = _key(self._seed), int(self._first_buckets[group]), self._buckets[group]
        done = 0
        while done < len(rows):
            done = _scatter(rows, done, self.rows, key, first, buckets, self.buffers, self.fill)
            self.write_full(first, first + buckets)
        self.rows += len(rows)


class BucketPermuter:
    """Writes the rows of a spill file to a target file, bucket by bucket, each bucket permuted.

    checksums: CRC-32 of each bucket in the target file, None if the bucket is not yet written.
    """

    def __init__(
        self,
        spill: Path,
        target: Path,
        buckets: Sequence[int],
        seed: int,
        checksums: Sequence[int | None] | None,
        schema: RowSchema = CRITEO,
    ) -> None:
        total = sum(buckets)
        self.schema = schema
        self._seed = seed
        self._extents = Extents.read(spill, total)
        self._rows = self._extents.bucket_rows()
        self._starts = np.concatenate([[0], np.cumsum(self._rows)])
        self.checksums: list[int | None] = [None] * total if checksums is None else list(checksums)
        self._spill = os.open(spill, os.O_RDONLY)
        # The kernel serializes writes to one file, and waiting threads would spin.
        self._write_lock = threading.Lock()
        self._target = os.open(target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        size = int(self._starts[-1]) * schema.row_bytes
        os.ftruncate(self._target, size)
        if size:
            os.posix_fallocate(self._target, 0, size)  # fails now if the disk is full

    @property
    def rows(self) -> int:
        """Number of rows of all buckets."""
        return int(self._starts[-1])

    def remaining(self) -> Iterator[int]:
        """Return the buckets that are not yet written."""
        return (bucket for bucket, checksum in enumerate(self.checksums) if checksum is None)

    def bucket_rows(self, bucket: int) -> int:
        """Return the number of rows of a bucket."""
        return int(self._rows[bucket])

    def write(self, buckets: Iterator[int], threads: int) -> None:
        """Write buckets, each with one thread."""

        def make_worker(_: Stages) -> _BucketWriter:
            return _BucketWriter(self)

        run_in_order(buckets, make_worker, threads=min(threads, _MAX_THREADS), stages=0)

    def close(self) -> None:
        """Close the files."""
        os.close(self._spill)
        os.close(self._target)

    def checksum(self) -> int:
        """Return the CRC-32 of the target file. All buckets must be written."""
        crc32 = 0
        for bucket, checksum in enumerate(self.checksums):
            assert checksum is not None
            crc32 = combine_crc32(crc32, checksum, self.bucket_rows(bucket) * self.schema.row_bytes)
        return crc32

    def write_bucket(self, bucket: int, memory: Rows, gathered: Rows) -> None:
        """Read one bucket into `memory` and write it permuted through the buffer `gathered`."""
        rows = memory[: self.bucket_rows(bucket)]
        done = 0
        for position, count in self._extents.of_bucket(bucket):
            read_rows_at(self._spill, rows[done : done + count], position)
            done += count
        stream = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(1, bucket)))
        order = stream.permutation(len(rows))
        start = int(self._starts[bucket]) * self.schema.row_bytes
        checksum, offset = 0, start
        for first in range(0, len(rows), len(gathered)):
            part = gathered[: len(rows) - first]
            _gather(rows, order[first : first + len(part)], part)
            checksum = zlib.crc32(part.data, checksum)
            with self._write_lock:
                write_fully_at(self._target, part.data, offset)
            offset += part.nbytes
        # Dirty pages are not dropped, but the disk starts to write them now, so that the final fsync is short.
        os.posix_fadvise(self._target, start, offset - start, os.POSIX_FADV_DONTNEED)
        self.checksums[bucket] = checksum


class _BucketWriter:
    """Writes buckets on one thread and reuses its memory."""

    def __init__(self, permuter: BucketPermuter) -> None:
        self._permuter = permuter
        self._memory = np.empty((0, permuter.schema.columns), np.int32)
        self._gathered = np.empty((_GATHER_ROWS, permuter.schema.columns), np.int32)

    def __call__(self, number: int, bucket: int) -> None:
        rows = self._permuter.bucket_rows(bucket)
        if len(self._memory) < rows:
            self._memory = np.empty((rows, self._permuter.schema.columns), np.int32)
        self._permuter.write_bucket(bucket, self._memory, self._gathered)


def _key(seed: int) -> np.uint64:
    words = np.random.SeedSequence(seed, spawn_key=(0,)).generate_state(1, np.uint64)
    return np.uint64(words[0])


@numba.njit(
    "(int32[:, ::1], int64, int64, uint64, int64, int64, int32[:, :, ::1], int64[::1])", nogil=True, cache=True
)
@compiled_with("mlperf.data.prepare.splitmix64")
def _scatter(
    rows: Rows,
    done: int,
    first_position: int,
    key: np.uint64,
    first_bucket: int,
    buckets: int,
    buffers: npt.NDArray[np.int32],
    fill: npt.NDArray[np.int64],
) -> int:
    """Copy rows from row `done` on to the buffers of their buckets until one is full; return the rows done.

    The bucket is a hash of the key and the position of the row.
    """
    columns = rows.shape[1]
    for row in range(done, len(rows)):
        value = splitmix64(key, first_position + row) >> np.uint64(32)
        bucket = first_bucket + np.int64((value * np.uint64(buckets)) >> np.uint64(32))
        position = fill[bucket]
        for column in range(columns):
            buffers[bucket, position, column] = rows[row, column]
        fill[bucket] = position + 1
        if position + 1 == buffers.shape[1]:
            return row + 1
    return len(rows)


@numba.njit("(int32[:, ::1], int64[::1], int32[:, ::1])", nogil=True, cache=True)
def _gather(rows: Rows, order: npt.NDArray[np.int64], gathered: Rows) -> None:
    """Copy rows[order] to `gathered`."""
    columns = rows.shape[1]
    for row in range(len(order)):
        source = order[row]
        for column in range(columns):
            gathered[row, column] = rows[source, column]
