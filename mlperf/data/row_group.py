"""Rows that were read together, as undecoded or as decoded batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.buffer_pool import BufferPool
from mlperf.data.multi_hot import IntArray, MultiHotTables, first_outside
from mlperf.data.row_reader import BinaryRows, IdReader
from mlperf.data.schema import Rows, RowSchema
from mlperf.data.watched_file import WatchedFile
from mlperf.util.errors import RunError

_ALIGNED_VALUES = 16  # float32, 64 bytes


@dataclass(frozen=True)
class RowGroup:
    """The rows of several batches.

    rows: int32 [R, columns], batch after batch.
    starts: position of the first row of each batch in the split, from 0.
    sizes: number of rows of each batch.
    ids: if there are several ids per table, those of all batches, int32 [R * ids per sample], batch after batch
        and table by table; otherwise None. Filled by `expand_ids` or `read_ids`.
    ids_per_table: number of ids of each table in a sample, if there are `ids`.
    """

    source: RowSource
    rows: torch.Tensor
    starts: Sequence[int]
    sizes: list[int]
    ids: torch.Tensor | None = None
    ids_per_table: tuple[int, ...] = ()

    def expand_ids(self, tables: MultiHotTables) -> None:
        """Fill `ids` with those of the rows, expanded by `tables`. RunError if one is invalid."""
        assert self.ids is not None
        source = self.source
        if not tables.expand_rows(
            *(self.rows.numpy(), source.schema.first_id, self.sizes, source.moduli, source.smallest_id),
            self.ids.numpy(),
        ):
            raise self._first_error()

    def read_ids(self, reader: IdReader) -> None:
        """Fill `ids` with stored ones. RunError if one is invalid."""
        assert self.ids is not None
        for part, start, size in zip(self._ids_of_batches(), self.starts, self.sizes, strict=True):
            reader.read_ids(part.numpy(), start, size)
        limits, counts = np.array(self.source.rows_per_table), np.array(self.ids_per_table)
        place = first_outside(self.ids.numpy(), np.array(self.sizes), counts, limits)
        if place[0] >= 0:
            raise self._outside_error(reader, *place)

    def raw_batches(self) -> list[RawBatch]:
        """Return the undecoded batches; they share the memory of `rows` and `ids`."""
        parts = self.rows.split(self.sizes)
        ids = [None] * len(parts) if self.ids is None else self._ids_of_batches()
        batches = zip(parts, self.starts, ids, strict=True)
        return [RawBatch(rows, start, self.source, of_batch) for rows, start, of_batch in batches]

    def batches(self, buffers: BufferPool) -> list[Batch]:
        """Return the decoded batches, with dense features as the DenseFormat says. RunError if a row is invalid.

        buffers: memory that the batches share, with blocks of at least `decoded_bytes` for these batches.
        """
        source, schema, rows, sizes = self.source, self.source.schema, self.rows.numpy(), np.array(self.sizes)
        largest, ids = int(sizes.max()), sum(self.ids_per_table) or schema.tables
        memory = buffers.take(decoded_bytes(schema, ids, len(sizes), largest))
        dense = np.ndarray((len(sizes), _dense_stride(schema, largest)), np.float32, memory)
        indices = np.ndarray(ids * len(rows), np.int64, memory, dense.nbytes)
        labels = np.ndarray((len(rows), 1), np.float32, memory, dense.nbytes + indices.nbytes)
        decoded = 0 if self.ids is not None else schema.tables  # several ids are valid already
        form = source.dense
        if not _decode(
            *(rows, rows.view(np.float32), sizes, np.array(source.rows_per_table)[:decoded], source.moduli),
            *(
                source.smallest_id,
                form.is_float,
                np.int32(form.smallest),
                np.float32(form.offset),
                schema.dense_features,
            ),
            *(dense, indices, labels),
        ):
            raise self._first_error()
        if self.ids is not None:
            indices[:] = self.ids.numpy()
        if not form.is_float:
            np.log(dense, out=dense)
        shape = (largest, schema.dense_features)
        parts = zip(
            torch.from_numpy(dense)[:, : math.prod(shape)].unflatten(1, shape).unbind(),
            torch.from_numpy(indices).split([ids * size for size in self.sizes]),
            torch.from_numpy(labels).split(self.sizes),
            self.sizes,
            strict=True,
        )
        return [
            self._batch(features if size == largest else features[:size], of_batch, labels, size)
            for features, of_batch, labels, size in parts
        ]

    def _batch(self, dense: torch.Tensor, indices: torch.Tensor, labels: torch.Tensor, size: int) -> Batch:
        if self.ids is None:
            return Batch(dense, indices.view(self.source.schema.tables, size), None, labels)
        return Batch(dense, indices, _fixed_offsets(self.ids_per_table, size), labels, self.ids_per_table)

    def _ids_of_batches(self) -> list[torch.Tensor]:
        assert self.ids is not None
        per_sample = sum(self.ids_per_table)
        return list(self.ids.split([per_sample * size for size in self.sizes]))

    def _first_error(self) -> RunError:
        source, schema = self.source, self.source.schema
        row, column = divmod(
            _first_invalid(
                *(self.rows.numpy(), np.array(source.rows_per_table), source.moduli),
                *(source.smallest_id, schema.dense_features),
            ),
            schema.columns,
        )
        batch = 0
        while row >= self.sizes[batch]:
            row -= self.sizes[batch]
            batch += 1
        return invalid_row_error(source, self.starts[batch] + row, column)

    def _outside_error(
        self, reader: IdReader, batch: int, row: int, table: int, number: int, value: int
    ) -> RunError:
        where = reader.place_of_id(self.starts[batch] + row, table, number)
        rows = self.source.rows_per_table[table]
        return RunError(f"{where}: index {value} is not in table {table}, which has {rows} rows")


@lru_cache(maxsize=8)
def _fixed_offsets(ids_per_table: tuple[int, ...], size: int) -> torch.Tensor:
    """Return the offsets of a batch in which each sample has the same number of ids, int64 [T, B]."""
    counts = torch.tensor(ids_per_table).view(-1, 1)
    starts = (counts.cumsum(0) - counts) * size
    return starts + counts * torch.arange(size)


def decoded_bytes(schema: RowSchema, ids: int, batches: int, batch_size: int) -> int:
    """Return the bytes of decoded batches with up to `batch_size` rows each, with `ids` ids in a row."""
    return batches * (4 * _dense_stride(schema, batch_size) + batch_size * (8 * ids + 4))


def _dense_stride(schema: RowSchema, batch_size: int) -> int:
    """Return the values between the dense features of two batches, which begin at multiples of 64 bytes.

    The rounding of matrix products depends on the alignment. With one of its own, a batch would give other weights
    after a run was resumed.
    """
    return -(-batch_size * schema.dense_features // _ALIGNED_VALUES) * _ALIGNED_VALUES


def invalid_row_error(source: RowSource, row: int, column: int) -> RunError:
    """Return the error for an invalid label (column 0) or index; `row` and `column` count from 0."""
    schema = source.schema
    reader = source.reader or BinaryRows(WatchedFile(source.path), row + 1, schema)
    where, value = reader.place(row, column)
    if column == 0:
        return RunError(f"{where}: label {value} is not 0 or 1")
    table = column - schema.first_id
    modulus = int(source.moduli[table])
    index = value % modulus if modulus > 0 and not source.modulo_rows else value
    return RunError(
        f"{where}: index {index} is not in table {table}, which has {source.rows_per_table[table]} rows"
    )


# Rows decoded together: they stay in the first-level cache while each of their columns is read.
_DECODED_TOGETHER = 128


# The signature compiles the function (or loads it from the cache) on import, before the timed part of a run.
@numba.njit(
    "boolean(int32[:, ::1], float32[:, ::1], int64[::1], int64[::1], int64[::1], int64, boolean, int32, float32,"
    " int64, float32[:, ::1], int64[::1], float32[:, ::1])",
    nogil=True,
    cache=True,
)
def _decode(
    rows: Rows,
    float_rows: npt.NDArray[np.float32],
    sizes: IntArray,
    limits: IntArray,
    moduli: IntArray,
    smallest_id: int,
    is_float: bool,
    smallest: np.int32,
    offset: np.float32,
    dense_features: int,
    dense: npt.NDArray[np.float32],
    indices: IntArray,
    labels: npt.NDArray[np.float32],
) -> bool:
    """Fill labels, indices (of each batch [T, B]) and dense with max(x, smallest) + offset.

    Return whether all labels and indices are valid.

    float_rows: the same memory as `rows`; if `is_float`, its dense features are copied.
    limits: rows of each table, or of none if no indices are needed.
    dense: [batches, stride], each batch at the beginning of its row; the rest is set to 1.

    The inner loops have no branches, so that the compiler uses vector instructions.
    """
    tables = len(limits)
    integers, floats = (0, dense_features) if is_float else (dense_features, 0)
    invalid = False
    batch_start = 0
    for number, size in enumerate(sizes):
        batch_stop = batch_start + size
        dense[number, size * dense_features :] = 1
        for start in range(batch_start, batch_stop, _DECODED_TOGETHER):
            stop = min(start + _DECODED_TOGETHER, batch_stop)
            for row in range(start, stop):
                label = rows[row, 0]
                invalid |= (label < 0) | (label > 1)
                labels[row, 0] = label
                values = dense[number, (row - batch_start) * dense_features :]
                for column in range(integers):
                    values[column] = np.float32(max(rows[row, 1 + column], smallest)) + offset
                for column in range(floats):
                    values[column] = float_rows[row, 1 + column]
            for table in range(tables):
                column, limit, modulus = 1 + dense_features + table, limits[table], moduli[table]
                ids = indices[tables * batch_start + table * size :][start - batch_start : stop - batch_start]
                for position in range(stop - start):
                    index = np.int64(rows[start + position, column])
                    # The compiler moves the first test out of the loop. A division takes longer than all the rest.
                    if modulus > 0 and (index < 0 or index >= modulus):
                        invalid |= bool(index < smallest_id)
                        index %= modulus
                    invalid |= (index < 0) | (index >= limit)
                    ids[position] = index
        batch_start = batch_stop
    return not invalid


@numba.njit("int64(int32[:, ::1], int64[::1], int64[::1], int64, int64)", nogil=True, cache=True)
def _first_invalid(rows: Rows, limits: IntArray, moduli: IntArray, smallest_id: int, dense_features: int) -> int:
    """Return row * columns + column of the first invalid label or index; at least one must be invalid."""
    columns = rows.shape[1]
    first_id = 1 + dense_features
    for row in range(len(rows)):
        if not 0 <= rows[row, 0] <= 1:
            return row * columns
        for table in range(len(limits)):
            index = np.int64(rows[row, first_id + table])
            if moduli[table] > 0:
                if index < smallest_id:
                    return row * columns + first_id + table
                index %= moduli[table]
            if not 0 <= index < limits[table]:
                return row * columns + first_id + table
    return -1
