"""A uniform permutation of more rows than fit in memory (Rao 1961, Sandelius 1962).

Each row goes to a bucket drawn at random, each bucket is permuted in memory, and the buckets follow one another:
every permutation is equally likely. What is drawn depends on the seed and a row's place, not on who does it.
"""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.prepare.parse import Rows
from mlperf.data.schema import COLUMNS, ROW_BYTES
from mlperf.util.crc32 import combine
from mlperf.util.files import read_fully_at, write_fully, write_fully_at
from mlperf.util.parallel import Stages, work_in_order

_BUCKET_BYTES = 128 << 20  # at most, about; each thread has one in memory
_SMALL_BUCKET_BYTES = 8 << 20  # fits a cache: better, as long as there are few buckets all the same
_FEW_BUCKETS = 256
EXTENT_BYTES = 8  # of an extent in the index file: two int32
_EXTENT_ROWS = 400  # 64 KB: large enough for one write, small enough to keep one for each bucket
_GATHER_ROWS = 1 << 11  # stays in a cache between being gathered and written
# A bucket and a little more is in memory for each thread: more than these gain nothing on one disk.
_MOST_THREADS = 8


def bucket_counts(expected_bytes: Sequence[int]) -> list[int]:
    """Return the number of buckets for groups of rows that are permuted among themselves, from their sizes."""
    return [
        max(1, -(-size // _BUCKET_BYTES), min(_FEW_BUCKETS, -(-size // _SMALL_BUCKET_BYTES)))
        for size in expected_bytes
    ]


class Spill:
    """Takes rows in order and leaves them in a file, in extents of one bucket each; an index file names them.

    buckets: how many each group has. rows, extents: what the files hold that is to be kept, from a former
    process; whatever is behind that is cut off.
    """

    def __init__(self, path: Path, buckets: Sequence[int], seed: int, *, rows: int = 0, extents: int = 0) -> None:
        self._buckets = buckets
        self._bases = np.cumsum([0, *buckets])
        self._seed = seed
        self.rows = rows
        self.extents = extents
        total = int(self._bases[-1])
        self._waiting = np.empty((total, _EXTENT_ROWS, COLUMNS), np.int32)
        self._fill = np.zeros(total, np.int64)
        self._file = cut_open(path, rows * ROW_BYTES)
        self._index = cut_open(index_path(path), extents * EXTENT_BYTES)

    def add(self, rows: Rows, group: int) -> None:
        """Take the next rows, int32 [N, 40], of a group."""
        key, base, buckets = _key(self._seed, 0), int(self._bases[group]), self._buckets[group]
        done = 0
        while done < len(rows):
            done = _scatter(rows, done, self.rows, key, base, buckets, self._waiting, self._fill)
            for bucket in np.flatnonzero(self._fill[base : base + buckets] == _EXTENT_ROWS):
                self._write(base + int(bucket))
        self.rows += len(rows)

    def flush(self) -> None:
        """Write everything taken; the last extent of each bucket may be shorter than the others."""
        for bucket in np.flatnonzero(self._fill):
            self._write(int(bucket))

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._index)

    def _write(self, bucket: int) -> None:
        count = int(self._fill[bucket])
        write_fully(self._file, self._waiting[bucket, :count].data)
        write_fully(self._index, np.array([bucket, count], np.int32).data)
        self._fill[bucket] = 0
        self.extents += 1


def index_path(spill: Path) -> Path:
    """Return the file that names the bucket and the rows of each extent."""
    return spill.with_name(f"{spill.name}.index")


def cut_open(path: Path, size: int) -> int:
    """Open a file to write behind its first `size` bytes; the rest goes. OSError if it is shorter."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if os.fstat(descriptor).st_size < size:
        raise OSError(errno.EIO, f"shorter than the {size} bytes that were saved", str(path))
    os.ftruncate(descriptor, size)
    os.lseek(descriptor, size, os.SEEK_SET)
    return descriptor


@dataclass(frozen=True)
class _Extents:
    """Where each bucket's rows are. Sorted by bucket: place in the spill and rows of every extent."""

    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]  # first[b]: the first extent of bucket b

    @classmethod
    def read(cls, spill: Path, buckets: int) -> _Extents:
        bucket, rows = np.fromfile(index_path(spill), np.int32).reshape(-1, 2).astype(np.int64).T
        order = np.argsort(bucket, kind="stable")
        places = np.cumsum(rows) - rows
        return cls(rows[order], places[order], np.searchsorted(bucket[order], np.arange(buckets + 1)))

    def bucket_rows(self) -> npt.NDArray[np.int64]:
        """Return the rows of each bucket."""
        sums = np.concatenate([[0], np.cumsum(self.rows)])
        return np.diff(sums[self.first])


class Permuter:
    """Writes a spill's rows, permuted, to a file. checksums: of the buckets already written, else None."""

    def __init__(
        self, spill: Path, target: Path, buckets: Sequence[int], seed: int, checksums: Sequence[int | None] | None
    ) -> None:
        total = sum(buckets)
        self._seed = seed
        self._extents = _Extents.read(spill, total)
        self._rows = self._extents.bucket_rows()
        self._starts = np.concatenate([[0], np.cumsum(self._rows)])
        self.checksums: list[int | None] = [None] * total if checksums is None else list(checksums)
        self._spill = os.open(spill, os.O_RDONLY)
        # The kernel lets one writer at a time into a file; those who wait for it there spin.
        self._writing = threading.Lock()
        self._target = os.open(target, os.O_RDWR | os.O_CREAT, 0o666)
        size = int(self._starts[-1]) * ROW_BYTES
        os.ftruncate(self._target, size)
        if size:
            os.posix_fallocate(self._target, 0, size)  # a full disk says so now

    def left(self) -> Iterator[int]:
        """Return the buckets that are not written yet."""
        return (bucket for bucket, checksum in enumerate(self.checksums) if checksum is None)

    def rows_of(self, bucket: int) -> int:
        """Return the rows of a bucket."""
        return int(self._rows[bucket])

    def write(self, buckets: Iterator[int], threads: int) -> None:
        """Write some buckets, each by one thread."""

        def make_worker(_: Stages) -> _BucketWriter:
            return _BucketWriter(self)

        work_in_order(buckets, make_worker, threads=min(threads, _MOST_THREADS), stages=0)

    def close(self) -> None:
        """Close the files."""
        os.close(self._spill)
        os.close(self._target)

    def checksum(self) -> int:
        """Return the CRC-32 of the whole file."""
        value = 0
        for bucket, checksum in enumerate(self.checksums):
            assert checksum is not None
            value = combine(value, checksum, self.rows_of(bucket) * ROW_BYTES)
        return value

    def write_bucket(self, bucket: int, memory: Rows, gathered: Rows) -> None:
        """Read one bucket into `memory`, and write it permuted through the buffer `gathered`."""
        rows = memory[: self.rows_of(bucket)]
        at = 0
        extents = self._extents
        for extent in range(int(extents.first[bucket]), int(extents.first[bucket + 1])):
            count = int(extents.rows[extent])
            part, offset = rows[at : at + count], int(extents.places[extent]) * ROW_BYTES
            if (read := read_fully_at(self._spill, part.data, offset)) < part.nbytes:
                raise OSError(f"temporary file ends {part.nbytes - read} bytes early")
            at += count
        stream = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(1, bucket)))
        order = stream.permutation(len(rows))
        checksum, offset = 0, int(self._starts[bucket]) * ROW_BYTES
        for first in range(0, len(rows), len(gathered)):
            part = gathered[: len(rows) - first]
            _gather(rows, order[first : first + len(part)], part)
            checksum = zlib.crc32(part.data, checksum)
            with self._writing:
                write_fully_at(self._target, part.data, offset)
            offset += part.nbytes
        # Dirty pages, so they stay: the disk begins to write them, and the fsync at the end finds little to do.
        begin = int(self._starts[bucket]) * ROW_BYTES
        os.posix_fadvise(self._target, begin, offset - begin, os.POSIX_FADV_DONTNEED)
        self.checksums[bucket] = checksum


class _BucketWriter:
    """A thread's work, with the memory it uses again and again."""

    def __init__(self, permuter: Permuter) -> None:
        self._permuter = permuter
        self._memory = np.empty((0, COLUMNS), np.int32)
        self._gathered = np.empty((_GATHER_ROWS, COLUMNS), np.int32)

    def __call__(self, number: int, bucket: int) -> None:
        if len(self._memory) < self._permuter.rows_of(bucket):
            self._memory = np.empty((self._permuter.rows_of(bucket), COLUMNS), np.int32)
        self._permuter.write_bucket(bucket, self._memory, self._gathered)


def _key(seed: int, stream: int) -> np.uint64:
    words = np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(1, np.uint64)
    return np.uint64(words[0])


@numba.njit(
    "(int32[:, ::1], int64, int64, uint64, int64, int64, int32[:, :, ::1], int64[::1])", nogil=True, cache=True
)
def _scatter(
    rows: Rows,
    done: int,
    first_place: int,
    key: np.uint64,
    base: int,
    buckets: int,
    waiting: npt.NDArray[np.int32],
    fill: npt.NDArray[np.int64],
) -> int:
    """Copy rows from `done` on to their buckets until one is full; return the number of rows done.

    A row's bucket is a hash of the key and its place (splitmix64; Steele, Lea and Flood, OOPSLA 2014).
    """
    for row in range(done, len(rows)):
        value = key + np.uint64(first_place + row) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value = (value ^ (value >> np.uint64(31))) >> np.uint64(32)
        bucket = base + np.int64((value * np.uint64(buckets)) >> np.uint64(32))
        place = fill[bucket]
        for column in range(COLUMNS):
            waiting[bucket, place, column] = rows[row, column]
        fill[bucket] = place + 1
        if place + 1 == waiting.shape[1]:
            return row + 1
    return len(rows)


@numba.njit("(int32[:, ::1], int64[::1], int32[:, ::1])", nogil=True, cache=True)
def _gather(rows: Rows, order: npt.NDArray[np.int64], gathered: Rows) -> None:
    for row in range(len(order)):
        source = order[row]
        for column in range(COLUMNS):
            gathered[row, column] = rows[source, column]
