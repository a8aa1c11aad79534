"""Rows of the binary file that were read together, as undecoded or as decoded batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.buffer_pool import BufferPool
from mlperf.data.schema import Rows, RowSchema
from mlperf.data.watched_file import WatchedFile
from mlperf.util.errors import RunError

_ALIGNED_VALUES = 16  # float32, 64 bytes


@dataclass(frozen=True)
class RowGroup:
    """The rows of several batches.

    rows: int32 [R, columns], batch after batch.
    starts: position of the first row of each batch in the file, from 0.
    sizes: number of rows of each batch.
    """

    source: RowSource
    rows: torch.Tensor
    starts: Sequence[int]
    sizes: list[int]

    def raw_batches(self) -> list[RawBatch]:
        """Return the undecoded batches; they share the memory of `rows`."""
        parts = self.rows.split(self.sizes)
        return [RawBatch(rows, start, self.source) for rows, start in zip(parts, self.starts, strict=True)]

    def batches(self, buffers: BufferPool) -> list[Batch]:
        """Return the decoded batches: dense features become log(1 + max(x, 0)). RunError if a row is invalid.

        buffers: memory that the batches share, with blocks of at least `decoded_bytes` for these batches.
        """
        schema, rows, sizes = self.source.schema, self.rows.numpy(), np.array(self.sizes)
        largest = int(sizes.max())
        memory = buffers.take(decoded_bytes(schema, len(sizes), largest))
        dense = np.ndarray((len(sizes), _dense_stride(schema, largest)), np.float32, memory)
        indices = np.ndarray(schema.tables * len(rows), np.int64, memory, dense.nbytes)
        labels = np.ndarray((len(rows), 1), np.float32, memory, dense.nbytes + indices.nbytes)
        limits = np.array(self.source.rows_per_table)
        if not _decode(rows, sizes, limits, self.source.max_ind_range, dense, indices, labels):
            raise self._first_error(rows, limits)
        np.log(dense, out=dense)
        shape = (largest, schema.dense_features)
        parts = zip(
            torch.from_numpy(dense)[:, : math.prod(shape)].unflatten(1, shape).unbind(),
            torch.from_numpy(indices).split([schema.tables * size for size in self.sizes]),
            torch.from_numpy(labels).split(self.sizes),
            self.sizes,
            strict=True,
        )
        return [
            Batch(features if size == largest else features[:size], ids.view(schema.tables, size), None, of_batch)
            for features, ids, of_batch, size in parts
        ]

    def _first_error(self, rows: Rows, limits: npt.NDArray[np.int64]) -> RunError:
        schema = self.source.schema
        row, column = divmod(
            _first_invalid(rows, limits, self.source.max_ind_range, schema.dense_features), schema.columns
        )
        batch = 0
        while row >= self.sizes[batch]:
            row -= self.sizes[batch]
            batch += 1
        return invalid_row_error(self.source, self.starts[batch] + row, column)


def decoded_bytes(schema: RowSchema, batches: int, batch_size: int) -> int:
    """Return the bytes of decoded batches with up to `batch_size` rows each."""
    return batches * (4 * _dense_stride(schema, batch_size) + batch_size * (8 * schema.tables + 4))


def _dense_stride(schema: RowSchema, batch_size: int) -> int:
    """Return the values between the dense features of two batches, which begin at multiples of 64 bytes.

    The rounding of matrix products depends on the alignment. With one of its own, a batch would give other weights
    after a run was resumed.
    """
    return -(-batch_size * schema.dense_features // _ALIGNED_VALUES) * _ALIGNED_VALUES


def invalid_row_error(source: RowSource, row: int, column: int) -> RunError:
    """Return the error for an invalid label (column 0) or index; `row` and `column` count from 0."""
    schema = source.schema
    found = np.zeros(1, schema.dtype)
    file = source.file or WatchedFile(source.path)
    file.read_at(found.data, row * schema.row_bytes + column * schema.dtype.itemsize)
    value = int(found[0])
    where = f"{source.path}: row {row + 1}, column {column + 1}"
    if column == 0:
        return RunError(f"{where}: label {value} is not 0 or 1")
    table = column - schema.first_id
    index = value % source.max_ind_range if source.max_ind_range > 0 else value
    return RunError(
        f"{where}: index {index} is not in table {table}, which has {source.rows_per_table[table]} rows"
    )


# Rows decoded together: they stay in the first-level cache while each of their columns is read.
_DECODED_TOGETHER = 128


# The signature compiles the function (or loads it from the cache) on import, before the timed part of a run.
@numba.njit(
    "boolean(int32[:, ::1], int64[::1], int64[::1], int64, float32[:, ::1], int64[::1], float32[:, ::1])",
    nogil=True,
    cache=True,
)
def _decode(
    rows: Rows,
    sizes: npt.NDArray[np.int64],
    limits: npt.NDArray[np.int64],
    max_ind_range: int,
    dense: npt.NDArray[np.float32],
    indices: npt.NDArray[np.int64],
    labels: npt.NDArray[np.float32],
) -> bool:
    """Fill labels, indices (of each batch [T, B]) and dense with 1 + max(x, 0). Return whether all are valid.

    dense: [batches, stride], each batch at the beginning of its row; the rest is set to 1.

    The inner loops have no branches, so that the compiler uses vector instructions.
    """
    tables = len(limits)
    dense_features = rows.shape[1] - 1 - tables
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
                for column in range(dense_features):
                    values[column] = np.float32(max(rows[row, 1 + column], 0)) + np.float32(1)
            for table in range(tables):
                column, limit = 1 + dense_features + table, limits[table]
                ids = indices[tables * batch_start + table * size :][start - batch_start : stop - batch_start]
                for position in range(stop - start):
                    index = np.int64(rows[start + position, column])
                    if max_ind_range > 0:  # the compiler moves this test out of the loop
                        index %= max_ind_range
                    invalid |= (index < 0) | (index >= limit)
                    ids[position] = index
        batch_start = batch_stop
    return not invalid


@numba.njit("int64(int32[:, ::1], int64[::1], int64, int64)", nogil=True, cache=True)
def _first_invalid(rows: Rows, limits: npt.NDArray[np.int64], max_ind_range: int, dense_features: int) -> int:
    """Return row * columns + column of the first invalid label or index; at least one must be invalid."""
    columns = rows.shape[1]
    first_id = 1 + dense_features
    for row in range(len(rows)):
        if not 0 <= rows[row, 0] <= 1:
            return row * columns
        for table in range(len(limits)):
            index = np.int64(rows[row, first_id + table])
            if max_ind_range > 0:
                index %= max_ind_range
            if not 0 <= index < limits[table]:
                return row * columns + first_id + table
    return -1
