"""Rows in NumPy arrays, day by day, as the DLRM-DCNv2 reference prepares them: read in place."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.batch import RowSource
from mlperf.data.buffer_pool import BufferPool
from mlperf.data.multi_hot import Ids, MultiHotTables
from mlperf.data.npy import StoredArray
from mlperf.data.row_batches import RowBatches
from mlperf.data.schema import CRITEO, MAX_TABLE_ROWS, DenseFormat, Rows, RowSchema
from mlperf.distributed.processes import ALONE, Processes
from mlperf.util.errors import RunError

_PIECE_ROWS = 8192  # rows that are read from each array before they are put together: they stay in the cache
_FLOATS = DenseFormat(is_float=True)
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DayPart:
    """Consecutive rows of a day.

    dense: float32 [N, dense features]. labels: int32 [N, 1]. sparse: int32 or int64 [N, T]; None if the rows have
    several ids per table, `ids`: of each table int32 [N, ids]. first: number of the first row in the arrays.
    rows: number of rows.
    """

    dense: StoredArray
    labels: StoredArray
    sparse: StoredArray | None
    ids: tuple[StoredArray, ...]
    first: int
    rows: int

    @property
    def arrays(self) -> list[StoredArray]:
        """All arrays."""
        return [self.dense, self.labels, *([] if self.sparse is None else [self.sparse]), *self.ids]


@dataclass(frozen=True)
class DayRows:
    """The rows of a split, part after part. Dense features are the bits of float32 numbers."""

    parts: Sequence[DayPart]
    schema: RowSchema = CRITEO

    @cached_property
    def _stops(self) -> list[int]:
        stops: list[int] = np.cumsum([part.rows for part in self.parts]).tolist()
        return stops

    @cached_property
    def _buffers(self) -> BufferPool:
        schema = self.schema
        return BufferPool(_PIECE_ROWS * (4 * (schema.dense_features + 1) + 8 * schema.tables))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._stops[-1] if self.parts else 0

    @property
    def ids_per_table(self) -> tuple[int, ...] | None:
        """Number of ids of each table in a row if there are several."""
        ids = self.parts[0].ids if self.parts else ()
        return tuple(array.header.shape[1] for array in ids) or None

    def check(self) -> None:
        """Raise RunError if a file has changed since it was opened."""
        for part in self.parts:
            for file in {id(array.file): array.file for array in part.arrays}.values():
                file.check()

    def read(self, rows: Rows, first: int) -> None:
        """Fill `rows`, int32 [N, columns]. RunError if a file has changed, a dense feature is not finite, or an id
        is not from 0 to 2^31 - 1.
        """
        done = 0
        for part, start, count in self._pieces(first, len(rows)):
            self._read_piece(part, start, rows[done : done + count])
            done += count

    def _pieces(self, first: int, count: int) -> Iterator[tuple[DayPart, int, int]]:
        """Yield the rows from `first` on, as a part, the first row in its arrays and the number of rows."""
        stop = first + count
        while first < stop:
            number = bisect_right(self._stops, first)
            part, end = self.parts[number], self._stops[number]
            size = min(stop, end, first + _PIECE_ROWS) - first
            yield part, part.first + part.rows - (end - first), size
            first += size

    def _read_piece(self, part: DayPart, start: int, rows: Rows) -> None:
        count, schema = len(rows), self.schema
        memory = self._buffers.take(count * (4 * (schema.dense_features + 1) + 8 * schema.tables))
        sparse: npt.NDArray[np.int64] | Ids = np.ndarray((count, 0), np.int32)
        if part.sparse is not None:  # first: it is the one that may have 8 bytes
            sparse = np.ndarray((count, schema.tables), part.sparse.header.dtype, memory)
            part.sparse.read(sparse, start)
        dense = np.ndarray((count, schema.dense_features), np.float32, memory, sparse.nbytes)
        labels = np.ndarray((count, 1), np.int32, memory, sparse.nbytes + dense.nbytes)
        part.dense.read(dense, start)
        part.labels.read(labels, start)
        position = _put_together(labels, dense, sparse, rows, rows.view(np.float32))
        if position >= 0:
            row, column = divmod(position, schema.columns)
            where, _ = self._place(part, start + row, column)
            if column < schema.first_id:
                raise RunError(f"{where}: {dense[row, column - 1]} is not a finite number")
            value = sparse[row, column - schema.first_id]
            raise RunError(f"{where}: id {value} is not from 0 to {MAX_TABLE_ROWS - 1}")

    def read_ids(self, ids: Ids, first: int, count: int) -> None:
        """Fill `ids`, int32 [L], with those of `count` rows, table by table. RunError if a file has changed."""
        done = 0
        for part, row, size in self._pieces(first, count):
            start = 0
            for array in part.ids:
                per_row = array.header.shape[1]
                array.read(
                    ids[start + done * per_row : start + (done + size) * per_row].reshape(size, per_row), row
                )
                start += count * per_row
            done += size

    def place(self, row: int, column: int) -> tuple[str, int]:
        """Return "file: row, column" of a label or an id, and the value."""
        part, start, _ = next(self._pieces(row, 1))
        return self._place(part, start, column)

    def _place(self, part: DayPart, row: int, column: int) -> tuple[str, int]:
        array, first = part.labels, 0
        if column >= self.schema.first_id and part.sparse is not None:
            array, first = part.sparse, self.schema.first_id
        elif column > 0:
            array, first = part.dense, 1
        values = np.zeros(array.header.shape[1:], array.header.dtype)
        array.read(values[np.newaxis], row)
        value = values[column - first]
        is_integer = array.header.dtype.kind == "i"
        return f"{array.name}: row {row + 1}, column {column - first + 1}", int(value) if is_integer else 0

    def place_of_id(self, row: int, table: int, number: int) -> str:
        """Return "file: row, column" of one of several ids."""
        part, start, _ = next(self._pieces(row, 1))
        return f"{part.ids[table].name}: row {start + 1}, column {number + 1}"


@numba.njit(nogil=True, cache=True)
def _first_invalid_column(dense: FloatArray, sparse: npt.NDArray[np.int64] | Ids) -> int:
    for column, value in enumerate(dense):
        if not abs(value) < np.float32(np.inf):
            return 1 + column
    for table, index in enumerate(sparse):
        if not 0 <= index < MAX_TABLE_ROWS:
            return 1 + len(dense) + table
    return 0


@numba.njit(
    [
        "int64(int32[:, ::1], float32[:, ::1], int32[:, ::1], int32[:, ::1], float32[:, ::1])",
        "int64(int32[:, ::1], float32[:, ::1], int64[:, ::1], int32[:, ::1], float32[:, ::1])",
    ],
    nogil=True,
    cache=True,
)
def _put_together(
    labels: Ids, dense: FloatArray, sparse: npt.NDArray[np.int64] | Ids, rows: Rows, float_rows: FloatArray
) -> int:
    """Fill `rows`, the same memory as `float_rows`, with labels, dense features and ids; without `sparse`, 0.

    Return row * columns + column of the first dense feature that is not finite or id that is not from 0 to
    2^31 - 1; -1 if there is none.
    """
    columns, features, tables = rows.shape[1], dense.shape[1], sparse.shape[1]
    first_invalid = -1
    for row in range(len(rows)):
        rows[row, 0] = labels[row, 0]
        valid = True
        for column in range(features):
            value = dense[row, column]
            valid &= abs(value) < np.float32(np.inf)  # False for NaN
            float_rows[row, 1 + column] = value
        for column in range(1 + features, columns):
            rows[row, column] = 0
        for table in range(tables):
            index = sparse[row, table]
            valid &= (index >= 0) & (index < MAX_TABLE_ROWS)
            rows[row, 1 + features + table] = np.int32(index)
        if not valid and first_invalid < 0:
            first_invalid = row * columns + _first_invalid_column(dense[row], sparse[row])
    return first_invalid


@dataclass(frozen=True)
class DayFiles(RowBatches):
    """One split of the data of the DLRM-DCNv2 reference, as a BatchSource.

    folder: for messages. reader: the open files; its rows are those of the split.
    rows_per_table: indices are taken modulo it; several ids per table must be below it. Other fields: as in
        RowBatches.
    """

    folder: Path
    reader: DayRows
    batch_size: int
    rows_per_table: tuple[int, ...]
    shuffle_seed: int | None = None
    limit: int = 0
    readers: int = 1
    pin_memory: bool = False
    multi_hot: MultiHotTables | None = None
    processes: Processes = ALONE
    rows: int = field(init=False)
    schema: RowSchema = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", self.reader.rows)  # the class is frozen
        object.__setattr__(self, "schema", self.reader.schema)

    @property
    def id_reader(self) -> DayRows | None:
        """The open files, if their rows have several ids per table."""
        return None if self.reader.ids_per_table is None else self.reader

    @property
    def source(self) -> RowSource:
        """The rows, and what is valid in them."""
        return RowSource(
            *(self.folder, self.rows_per_table),
            schema=self.schema,
            reader=self.reader,
            dense=_FLOATS,
            modulo_rows=True,
        )
