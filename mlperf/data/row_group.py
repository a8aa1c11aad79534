"""Rows that were read together, as undecoded or as decoded batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.buffer_pool import BufferPool
from mlperf.data.decoding import decode, first_invalid, take_ids, transform
from mlperf.data.multi_hot import MultiHotTables, first_outside
from mlperf.data.row_reader import BinaryRows, IdReader
from mlperf.data.schema import DenseTransform, RowSchema
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
        and table by table; otherwise None. Filled by `expand_ids`, `read_ids` or `take_ids`.
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
        batch, row, table, number, value = first_outside(self.ids.numpy(), np.array(self.sizes), counts, limits)
        if batch >= 0:
            where = reader.place_of_id(self.starts[batch] + row, table, number)
            raise outside_error(self.source, where, table, value)

    def take_ids(self) -> None:
        """Fill `ids` with those of the rows, which have several per table. RunError if one is invalid."""
        assert self.ids is not None
        schema, sizes = self.source.schema, np.array(self.sizes)
        limits, counts, ids = np.array(self.source.rows_per_table), np.array(self.ids_per_table), self.ids.numpy()
        if not take_ids(self.rows.numpy(), schema.first_id, sizes, counts, limits, ids):
            batch, row, table, number, _ = first_outside(ids, sizes, counts, limits)
            raise invalid_row_error(self.source, self.starts[batch] + row, schema.first_ids[table] + number)

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
        valid = decode(
            *(rows, rows.view(np.float32), sizes, np.array(source.rows_per_table)[:decoded], source.moduli),
            *(
                source.smallest_id,
                form.is_float,
                np.int32(form.smallest),
                np.float32(form.offset),
                schema.dense_features,
            ),
            *(dense, indices, labels),
        )
        if form.transforms:
            valid &= transform(dense, sizes, schema.dense_features, *_transform_arrays(form.transforms))
        if not valid:
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
        source, schema, rows = self.source, self.source.schema, self.rows.numpy()
        limits = np.array(source.rows_per_table if schema.is_one_hot else (), np.int64)
        row, column = divmod(
            first_invalid(
                *(rows, rows.view(np.float32), limits, source.moduli),
                *(source.smallest_id, schema.dense_features, source.dense.is_float),
            ),
            schema.columns,
        )
        batch = 0
        while row >= self.sizes[batch]:
            row -= self.sizes[batch]
            batch += 1
        return invalid_row_error(source, self.starts[batch] + row, column)


@lru_cache(maxsize=8)
def _transform_arrays(
    transforms: tuple[DenseTransform, ...],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the transforms as the loop takes them."""
    return (
        np.array([each.is_log for each in transforms]),
        np.array([each.mean for each in transforms], np.float64),
        np.array([each.deviation for each in transforms], np.float64),
    )


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
    """Return the error for an invalid label (column 0), dense feature or index.

    `row` and `column` count from 0.
    """
    schema = source.schema
    reader = source.reader or BinaryRows(WatchedFile(source.path), row + 1, schema)
    where, value = reader.place(row, column)
    if column == 0:
        return RunError(f"{where}: label {value} is not 0 or 1")
    if column < schema.first_id:
        number = np.array(value, np.int32).view(np.float32)
        return RunError(f"{where}: the dense feature {number} is not a finite number")
    table = schema.table_of(column)
    modulus = int(source.moduli[table])
    return outside_error(
        source, where, table, value % modulus if modulus > 0 and not source.modulo_rows else value
    )


def outside_error(source: RowSource, where: str, table: int, index: int) -> RunError:
    """Return the error for an index outside its table. where: "file: row, column"."""
    rows = source.rows_per_table[table]
    return RunError(f"{where}: index {index} is not in table {table}, which has {rows} rows")
