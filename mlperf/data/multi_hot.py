"""Several ids per table for data with one: a table for each feature gives the ids of each id.

The tables are those of the benchmark DLRM-DCNv2 (MLCommons' reference implementation, recommendation_v2): row i of
a feature's table is i itself, followed by ids drawn from NumPy's legacy generator with seed 0, one feature after
the other. So the expansion is a fixed function of the id, the same in every epoch and process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import Rows
from mlperf.data.synthetic import legacy_stream
from mlperf.data.watched_file import WatchedFile
from mlperf.util.errors import RunError

Ids = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]

_SEED = 0
_PARETO_SHAPE = 0.25
# Ids drawn together. Drawing in pieces gives the same numbers.
PIECE_IDS = 1 << 21


@dataclass(frozen=True)
class MultiHotShape:
    """What determines the tables.

    rows_per_table: T numbers of rows of the embedding tables. sizes: T numbers of ids per table and sample.
    distribution: "uniform" or "pareto".
    """

    rows_per_table: tuple[int, ...]
    sizes: tuple[int, ...]
    distribution: str = "uniform"

    @property
    def ids(self) -> int:
        """Number of ids in all tables."""
        return sum(rows * size for rows, size in zip(self.rows_per_table, self.sizes, strict=True))

    def pieces(self) -> Iterator[tuple[int, Ids]]:
        """Yield the tables in order, as their number and the next rows, int32 [rows, size]."""
        stream = np.random.RandomState(_SEED)
        state = legacy_stream.state_of(stream)
        for table, (rows, size) in enumerate(zip(self.rows_per_table, self.sizes, strict=True)):
            step = max(1, PIECE_IDS // size)
            for start in range(0, rows, step):
                piece = np.empty((min(step, rows - start), size), np.int32)
                piece[:, 0] = np.arange(start, start + len(piece))
                if self.distribution == "pareto":
                    piece[:, 1:] = _pareto(stream, rows, (len(piece), size - 1))
                else:
                    drawn = np.empty((len(piece), size - 1), np.int32)
                    legacy_stream.fill_below(state, rows, drawn)
                    piece[:, 1:] = drawn
                yield table, piece


def _pareto(stream: np.random.RandomState, rows: int, shape: tuple[int, int]) -> IntArray:
    """Return ids whose distribution has a long tail.

    The reference converts the numbers to int32, and takes them modulo the rows. What does not fit becomes the
    smallest int32, as x86 processors do.
    """
    numbers = stream.pareto(_PARETO_SHAPE, shape)
    return np.where(numbers < 2.0**31, numbers, -(2.0**31)).astype(np.int64) % rows


@dataclass(frozen=True, eq=False)
class MultiHotTables:
    """The tables of all features.

    values: the tables, int32, in memory or mapped from a file.
    starts: position in `values` of the first id of each table, int64 [T].
    file: the mapped file.
    """

    shape: MultiHotShape
    values: Ids
    starts: IntArray
    file: WatchedFile | None = None

    @classmethod
    def drawn(cls, shape: MultiHotShape) -> MultiHotTables:
        """Draw the tables in memory, int32, `shape.ids` in all."""
        values = np.empty(shape.ids, np.int32)
        lengths = [rows * size for rows, size in zip(shape.rows_per_table, shape.sizes, strict=True)]
        done = 0
        for _, piece in shape.pieces():
            values[done : done + piece.size] = piece.reshape(-1)
            done += piece.size
        return cls(shape, values, np.cumsum([0, *lengths[:-1]]))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of ids per table and sample."""
        return self.shape.sizes

    def table(self, number: int) -> Ids:
        """Return the table of a feature, int32 [rows, ids]."""
        rows, size = self.shape.rows_per_table[number], self.sizes[number]
        start = int(self.starts[number])
        return self.values[start : start + rows * size].reshape(rows, size)

    def expand(self, ids: npt.ArrayLike) -> Ids:
        """Return the ids of B samples, int32 [L], table by table, [B, sizes[k]] each, for one id each, [B, T].

        Ids are taken modulo the rows of their table. ValueError if one is negative.
        """
        rows = np.ascontiguousarray(ids, np.int32)
        expanded = np.empty(len(rows) * sum(self.sizes), np.int32)
        if not self.expand_rows(rows, 0, [len(rows)], self.moduli, 0, expanded):
            raise ValueError("an id is negative")
        return expanded

    @cached_property
    def moduli(self) -> IntArray:
        """The rows of each table, int64 [T]."""
        return np.array(self.shape.rows_per_table)

    def expand_rows(
        self, rows: Rows, first_id: int, sizes: Sequence[int], moduli: IntArray, smallest_id: int, expanded: Ids
    ) -> bool:
        """Fill `expanded` with the ids of the batches in `rows`. Return False if an id of `rows` is invalid.

        rows: int32 [N, columns], batch after batch, with the id of table k in column `first_id` + k.
        sizes: number of rows of each batch.
        moduli: int64 [T]; if it is positive, ids must be at least `smallest_id` and are first taken modulo it.
        expanded: int32 [N * ids per sample], batch after batch, each table by table.

        RunError if the file with the tables has changed or contains ids outside their table.
        """
        if self.file is not None:
            self.file.check()  # reading beyond the end of a file that was cut would kill the process
        valid = _expand(
            *(rows, first_id, np.array(sizes), self.moduli, moduli, smallest_id),
            *(np.array(self.sizes), self.starts, self.values, expanded),
        )
        if self.file is not None:
            self.file.check()
            if valid == _DAMAGED:
                raise RunError(
                    f"{self.file.path}: damaged: an id is outside its table; remove it to draw it again"
                )
        return bool(valid == _VALID)


_VALID, _INVALID, _DAMAGED = 0, 1, 2
# Rows whose ids are checked together: they stay in the first-level cache.
_EXPANDED_TOGETHER = 64


@numba.njit(
    "int64(int32[:, ::1], int64, int64[::1], int64[::1], int64[::1], int64, int64[::1], int64[::1],"
    " Array(int32, 1, 'C', readonly=True), int32[::1])",
    nogil=True,
    cache=True,
)
def _expand(
    rows: Rows,
    first_id: int,
    sizes: IntArray,
    limits: IntArray,
    moduli: IntArray,
    smallest_id: int,
    ids_per_table: IntArray,
    starts: IntArray,
    values: Ids,
    expanded: Ids,
) -> int:
    invalid = damaged = False
    firsts = np.empty(_EXPANDED_TOGETHER, np.int64)
    batch_start = done = 0
    for batch_size in sizes:
        for table in range(len(limits)):
            limit, modulus, count, start = limits[table], moduli[table], ids_per_table[table], starts[table]
            largest = np.int32(limit - 1)  # 32 bits: twice as many are compared at once
            batch_stop = batch_start + batch_size
            for block in range(batch_start, batch_stop, _EXPANDED_TOGETHER):
                block_rows = min(_EXPANDED_TOGETHER, batch_stop - block)
                for row in range(block_rows):
                    index = np.int64(rows[block + row, first_id + table])
                    if modulus > 0 and (index < 0 or index >= modulus):  # a division takes longer than the rest
                        invalid |= bool(index < smallest_id)
                        index %= modulus
                    if index < 0 or index >= limit:
                        invalid = True
                        index = np.int64(0)
                    firsts[row] = start + index * count
                block_start = done
                for first in firsts[:block_rows]:
                    source, target = values[first : first + count], expanded[done : done + count]
                    for number in range(count):
                        target[number] = source[number]
                    done += count
                for value in expanded[block_start:done]:
                    damaged |= (value < 0) | (value > largest)
        batch_start += batch_size
    if invalid:
        return _INVALID
    return _DAMAGED if damaged else _VALID


@numba.njit("UniTuple(int64, 5)(int32[::1], int64[::1], int64[::1], int64[::1])", nogil=True, cache=True)
def first_outside(
    ids: Ids, sizes: IntArray, ids_per_table: IntArray, limits: IntArray
) -> tuple[int, int, int, int, int]:
    """Return where the first id outside its table is: batch, row in it, table, number in the row; and the id.

    All are -1 if there is none.

    ids: batch after batch, each table by table, [size, ids_per_table[k]] each. limits: rows of each table.
    """
    start = 0
    for batch, size in enumerate(sizes):
        for table in range(len(limits)):
            count, largest = int(ids_per_table[table]), np.int32(limits[table] - 1)
            part = ids[start : start + size * count]
            invalid = False
            for value in part:
                invalid |= (value < 0) | (value > largest)
            if invalid:
                for position, value in enumerate(part):
                    if value < 0 or value > largest:
                        return batch, position // count, table, position % count, int(value)
            start += len(part)
    return -1, -1, -1, -1, -1
