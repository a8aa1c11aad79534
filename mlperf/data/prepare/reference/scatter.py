"""Distribute the training rows among buckets of consecutive positions in the shuffled order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.extents import ExtentWriter, read_rows_at
from mlperf.data.prepare.reference.permutation import Positions
from mlperf.data.prepare.reference.values import convert, round_ids
from mlperf.data.schema import CRITEO, Rows
from mlperf.util.files import read_fully_at
from mlperf.util.parallel import Portions, Stages, run_in_order
from mlperf.util.progress import Progress

_COLUMNS = CRITEO.columns  # a constant of the compiled loop
_BLOCK_ROWS = 1 << 13
_MIN_SHIFT = 15  # buckets of 5 MB, which fit in the CPU cache
_MAX_BUCKETS_LOG = 12  # each has a buffer of 64 KB

DayBlock = tuple[int, int, int]  # day, first row and number of rows


def bucket_shift(rows: int, min_shift: int = _MIN_SHIFT) -> int:
    """Return the logarithm to base 2 of the rows of a bucket: position p is in bucket p >> shift."""
    return max(min_shift, ((rows - 1) >> _MAX_BUCKETS_LOG).bit_length())


class PositionScatter(ExtentWriter):
    """Puts each row into the bucket of its new position.

    A row that is written has 2 * (position within the bucket) + label in column 0, where it had its label.
    """

    def __init__(self, path: Path, rows_in_all: int, shift: int, *, rows: int = 0, extents: int = 0) -> None:
        self._shift = shift
        super().__init__(path, ((rows_in_all - 1) >> shift) + 1, rows=rows, extents=extents)

    def append(self, rows: Rows, positions: Positions) -> None:
        """Add rows, int32 [N, columns], with their new positions, uint32 [N]."""
        done = 0
        while done < len(rows):
            done = _scatter(rows, positions, done, self._shift, self.buffers, self.fill)
            bucket = int(positions[done - 1]) >> self._shift
            self.write_full(bucket, bucket + 1)
        self.rows += len(rows)


@numba.njit(
    "int64(int32[:, ::1], uint32[::1], int64, int64, int32[:, :, ::1], int64[::1])", nogil=True, cache=True
)
def _scatter(
    rows: Rows,
    positions: Positions,
    done: int,
    shift: int,
    buffers: npt.NDArray[np.int32],
    fill: npt.NDArray[np.int64],
) -> int:
    """Copy rows from row `done` on to the buffers of their buckets until one is full; return the rows done."""
    within = np.uint32((1 << shift) - 1)
    for row in range(done, len(rows)):
        bucket = np.int64(positions[row] >> np.uint32(shift))
        place = fill[bucket]
        for column in range(1, _COLUMNS):
            buffers[bucket, place, column] = rows[row, column]
        buffers[bucket, place, 0] = np.int32((positions[row] & within) << np.uint32(1)) | rows[row, 0]
        fill[bucket] = place + 1
        if place + 1 == buffers.shape[1]:
            return row + 1
    return len(rows)


class Scatter:
    """Reads rows in the order of the text and their positions, converts them, and passes them to `target`.

    rows_file, positions_file: of all training rows. rows_per_day: of the training days. smallest: the smallest
    integer of each day. inputs: the text of each day, for messages.
    """

    def __init__(
        self,
        rows_file: Path,
        positions_file: Path,
        target: PositionScatter,
        rows_per_day: Sequence[int],
        smallest: Sequence[int],
        inputs: Sequence[Path],
    ) -> None:
        self._rows_file = os.open(rows_file, os.O_RDONLY)
        self._positions_file = os.open(positions_file, os.O_RDONLY)
        self._target = target
        self._rows_per_day = rows_per_day
        self._smallest = smallest
        self._inputs = inputs
        self._blocks = Portions(self._remaining())
        rows = sum(rows_per_day)
        row_bytes = CRITEO.row_bytes
        self._progress = Progress("distributing rows", rows * row_bytes, target.rows * row_bytes, target.rows)

    @property
    def finished(self) -> bool:
        """Whether all rows have been distributed."""
        return self._blocks.exhausted

    def run(self, seconds: float, threads: int) -> None:
        """Distribute rows for `seconds` or until the last one."""

        def make_worker(stages: Stages) -> Callable[[int, DayBlock], None]:
            rows = np.empty((_BLOCK_ROWS, CRITEO.columns), np.int32)
            positions = np.empty(_BLOCK_ROWS, np.uint32)
            return lambda number, block: self._process(stages, rows, positions, number, block)

        run_in_order(self._blocks.portion(seconds), make_worker, threads=threads, stages=1)

    def close(self) -> None:
        """Close the files that are read, and end the progress report."""
        self._progress.close(finished=self.finished)
        os.close(self._rows_file)
        os.close(self._positions_file)

    def _remaining(self) -> Iterator[DayBlock]:
        """Yield blocks of rows of one day, starting at the first row that `target` does not have."""
        start, done = 0, self._target.rows
        for day, rows in enumerate(self._rows_per_day):
            for first in range(max(start, done), start + rows, _BLOCK_ROWS):
                yield day, first, min(_BLOCK_ROWS, start + rows - first)
            start += rows

    def _process(self, stages: Stages, rows: Rows, positions: Positions, number: int, block: DayBlock) -> None:
        day, first, count = block
        rows, positions = rows[:count], positions[:count]
        read_rows_at(self._rows_file, rows, first)
        if read_fully_at(self._positions_file, positions.data, positions.itemsize * first) < positions.nbytes:
            raise OSError("temporary file of positions ends early")
        convert(rows, self._smallest[day], self._inputs[day])
        round_ids(rows)
        with stages.turn(0, number):
            self._target.append(rows, positions)
            self._progress.add(rows.nbytes, count)
