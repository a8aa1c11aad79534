"""The single binary file: 40 little-endian int32 a row, read in batches."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.schema import COLUMNS, DENSE_FEATURES, FIRST_ID, ROW_BYTES, TABLES
from mlperf.data.source import Item, read_ahead
from mlperf.util.errors import RunError
from mlperf.util.files import read_fully_at

# Rows that a reading thread hands over at a time, at least: small batches together.
_ROWS_TOGETHER = 8192


@dataclass(frozen=True)
class BinaryFile:
    """One split of a Criteo data set in the binary format, a BatchSource.

    rows_per_table: valid indices of table T are 0 to rows_per_table[T] - 1. max_ind_range > 0: indices are
    taken modulo it as they are read. shuffle_seed: visit the batches of each epoch in an order drawn from it;
    None: file order. limit: at most this many batches an epoch, 0 for all.
    """

    path: Path
    rows: int
    batch_size: int
    rows_per_table: tuple[int, ...]
    max_ind_range: int = -1
    shuffle_seed: int | None = None
    limit: int = 0
    readers: int = 1
    pin_memory: bool = False

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch, a last smaller one included."""
        batches = math.ceil(self.rows / self.batch_size)
        return min(batches, self.limit) if self.limit else batches

    @property
    def samples(self) -> int:
        """Samples in an epoch."""
        return min(self.rows, self.batches_per_epoch * self.batch_size)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `first` on, read ahead by threads."""

        def decoded(raw: RawBatch) -> Batch:
            batch = decode(raw)
            return batch.pin() if self.pin_memory else batch

        return self._read_epoch(epoch, first, decoded)

    def raw_batches(self, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Yield the same batches as the file has them, not yet checked."""
        return self._read_epoch(epoch, first, lambda raw: raw)

    def _read_epoch(self, epoch: int, first: int, make: Callable[[RawBatch], Item]) -> Iterator[Item]:
        together = max(1, _ROWS_TOGETHER // self.batch_size)
        source = RowSource(self.path, self.rows_per_table, self.max_ind_range)
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}") from None
        try:
            order = self._order(epoch)[first:]
            yield from read_ahead(
                lambda number: make(self._read(file, source, number)), order, self.readers, together
            )
        finally:
            os.close(file)

    def _order(self, epoch: int) -> Sequence[int]:
        everything = math.ceil(self.rows / self.batch_size)
        if self.shuffle_seed is None:
            return range(self.batches_per_epoch)
        stream = np.random.default_rng(np.random.SeedSequence(self.shuffle_seed, spawn_key=(epoch,)))
        order: Sequence[int] = stream.permutation(everything)[: self.batches_per_epoch].tolist()
        return order

    def _read(self, file: int, source: RowSource, number: int) -> RawBatch:
        start = number * self.batch_size
        size = min(self.batch_size, self.rows - start)
        rows = torch.empty(size, COLUMNS, dtype=torch.int32, pin_memory=self.pin_memory)
        try:
            count = read_fully_at(file, rows.numpy().data, start * ROW_BYTES)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read at row {start + 1}: {error.strerror}") from None
        if count < size * ROW_BYTES:
            raise RunError(f"{self.path}: ends before row {start + size} of {self.rows}, {ROW_BYTES} bytes each")
        return RawBatch(rows, start, source)


def decode(raw: RawBatch) -> Batch:
    """Return the batch that rows in host memory stand for. RunError if one of them is invalid."""
    rows: npt.NDArray[np.int32] = raw.rows.numpy()
    size = len(rows)
    dense = np.empty((size, DENSE_FEATURES), np.float32)
    indices = np.empty((TABLES, size), np.int64)
    labels = np.empty((size, 1), np.float32)
    limits = np.array(raw.source.rows_per_table)
    invalid = _decode_rows(rows, limits, raw.source.max_ind_range, dense, indices, labels)
    if invalid >= 0:
        raise invalid_row_error(raw.source, raw.first_row + invalid // COLUMNS, invalid % COLUMNS)
    np.log(dense, out=dense)
    return Batch(torch.from_numpy(dense), torch.from_numpy(indices), None, torch.from_numpy(labels))


def invalid_row_error(source: RowSource, row: int, column: int) -> RunError:
    """Return what is wrong with `column` of `row`, both counted from 0: a label or the index of a table."""
    value = int(np.fromfile(source.path, "<i4", 1, offset=row * ROW_BYTES + 4 * column)[0])
    where = f"{source.path}: row {row + 1}, column {column + 1}"
    if column == 0:
        return RunError(f"{where}: label {value} is not 0 or 1")
    table = column - FIRST_ID
    index = value % source.max_ind_range if source.max_ind_range > 0 else value
    return RunError(
        f"{where}: index {index} is not in table {table}, which has {source.rows_per_table[table]} rows"
    )


# Compiled, or loaded from its cache, at import: the first batch of a timed run must not wait for it.
@numba.njit(
    "int64(int32[:, ::1], int64[::1], int64, float32[:, ::1], int64[:, ::1], float32[:, ::1])",
    nogil=True,
    cache=True,
)
def _decode_rows(
    rows: npt.NDArray[np.int32],
    limits: npt.NDArray[np.int64],
    max_ind_range: int,
    dense: npt.NDArray[np.float32],
    indices: npt.NDArray[np.int64],
    labels: npt.NDArray[np.float32],
) -> int:
    """Fill labels, 1 + integers, and indices; return row * COLUMNS + column of the first invalid value, or -1."""
    invalid = -1
    for row in range(len(rows)):
        label = rows[row, 0]
        if invalid < 0 and not 0 <= label <= 1:
            invalid = row * COLUMNS
        labels[row, 0] = label
        for column in range(DENSE_FEATURES):
            dense[row, column] = np.float32(max(rows[row, 1 + column], 0)) + np.float32(1)
        for table in range(TABLES):
            index = np.int64(rows[row, FIRST_ID + table])
            if max_ind_range > 0:
                index %= max_ind_range
            if invalid < 0 and not 0 <= index < limits[table]:
                invalid = row * COLUMNS + FIRST_ID + table
            indices[table, row] = index
    return invalid
