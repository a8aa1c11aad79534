"""A uniform permutation of more rows than fit in memory (Rao 1961, Sandelius 1962).

Each row goes to a bucket drawn at random, each bucket is permuted in memory, and the buckets follow one another:
every permutation is equally likely.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.parse import Rows
from mlperf.data.criteo.row_format import COLUMNS, ROW_BYTES

_BUCKET_BYTES = 256 << 20
_EXTENT_ROWS = 400  # 64 KB: large enough for one write, small enough to keep one for each bucket


class Shuffler:
    """Takes rows in order and gives them back permuted. Buckets live in one temporary file, `spill`.

    expected_bytes: an estimate of the rows' size, which sets the number of buckets: memory is about 300 MB.
    stream: identifies this permutation among all of one seed.
    """

    def __init__(self, spill: Path, expected_bytes: int, seed: int, stream: int) -> None:
        self._buckets = max(1, -(-expected_bytes // _BUCKET_BYTES))
        self._seed = seed
        self._stream = stream
        self._choice = self._generator(0)
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(self._buckets)]  # (offset, rows)
        self._waiting = np.empty((self._buckets, _EXTENT_ROWS, COLUMNS), np.int32)
        self._fill = np.zeros(self._buckets, np.int64)
        self._file = spill.open("w+b", buffering=0)
        spill.unlink()  # the space is given back whatever ends this process

    def __enter__(self) -> Shuffler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: Rows) -> None:
        """Take the next rows, int32 [N, 40]."""
        bucket_of = self._choice.integers(self._buckets, size=len(rows))
        done = 0
        while done < len(rows):
            done = _scatter(rows, bucket_of, done, self._waiting, self._fill)
            for bucket in np.flatnonzero(self._fill == _EXTENT_ROWS):
                self._flush(int(bucket))

    def permuted(self) -> Iterator[Rows]:
        """Yield all rows, permuted, one bucket at a time. Nothing can be added after that."""
        for bucket in range(self._buckets):
            self._flush(bucket)
            count = sum(rows for _, rows in self._extents[bucket])
            rows = np.empty((count, COLUMNS), np.int32)
            at = 0
            for offset, length in self._extents[bucket]:
                _read_exactly(self._file.fileno(), rows[at : at + length], offset)
                at += length
            yield rows[self._generator(1 + bucket).permutation(count)]

    def _generator(self, number: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self._stream, number)))

    def _flush(self, bucket: int) -> None:
        count = int(self._fill[bucket])
        if count:
            offset = self._file.seek(0, os.SEEK_END)
            write_exactly(self._file.fileno(), self._waiting[bucket, :count])
            self._extents[bucket].append((offset, count))
            self._fill[bucket] = 0


@numba.njit(nogil=True, cache=True)
def _scatter(
    rows: Rows,
    bucket_of: npt.NDArray[np.int64],
    first: int,
    waiting: npt.NDArray[np.int32],
    fill: npt.NDArray[np.int64],
) -> int:
    """Copy rows from `first` on to their buckets until one is full; return the number of rows done."""
    for row in range(first, len(rows)):
        bucket = bucket_of[row]
        waiting[bucket, fill[bucket]] = rows[row]
        fill[bucket] += 1
        if fill[bucket] == waiting.shape[1]:
            return row + 1
    return len(rows)


def write_exactly(descriptor: int, rows: Rows) -> None:
    """Write all bytes of `rows` at the file's position: one call may write less than it is given."""
    left = np.ascontiguousarray(rows).data.cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


def _read_exactly(descriptor: int, rows: Rows, offset: int) -> None:
    left = rows.data.cast("B")
    while left:
        read = os.preadv(descriptor, [left], offset)
        if read == 0:
            raise OSError(f"temporary file ends {len(left) // ROW_BYTES} rows early")
        left, offset = left[read:], offset + read
