"""The binary file of a split: fixed-length rows of int32, read and decoded in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.schema import CRITEO, Rows, RowSchema
from mlperf.data.source import MIN_GROUP_ROWS, Item, read_ahead
from mlperf.data.watched_file import FileStatus, WatchedFile
from mlperf.util.errors import RunError


@dataclass(frozen=True)
class BinaryFile:
    """One split of a prepared data set, as a BatchSource.

    The file is opened when this object is created. RunError if that fails or, later, if the file has changed.

    rows_per_table: the valid indices of table T are 0 to rows_per_table[T] - 1.
    max_ind_range: if positive, indices are taken modulo it when they are read.
    shuffle_seed: seed of the random order in which each epoch visits the batches; None: file order.
    limit: maximum number of batches in an epoch; 0: no limit.
    readers: number of threads that read ahead.
    schema: layout of the rows, with one id per table.
    expected: status of the file when it was checked.
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
    schema: RowSchema = CRITEO
    expected: FileStatus | None = None
    _file: WatchedFile = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_file", WatchedFile(self.path, self.expected))  # the class is frozen

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch, including a smaller last one."""
        batches = math.ceil(self.rows / self.batch_size)
        return min(batches, self.limit) if self.limit else batches

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        return min(self.rows, self.batches_per_epoch * self.batch_size)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from batch number `first` on. RunError if a row is invalid."""

        def decoded(raw: RawBatch) -> Batch:
            batch = decode(raw)
            return batch.pin() if self.pin_memory else batch

        return self._read_epoch(epoch, first, decoded)

    def raw_batches(self, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Yield the same batches undecoded and unchecked."""
        return self._read_epoch(epoch, first, lambda raw: raw)

    def _read_epoch(self, epoch: int, first: int, make: Callable[[RawBatch], Item]) -> Iterator[Item]:
        group_size = max(1, MIN_GROUP_ROWS // self.batch_size)
        source = RowSource(self.path, self.rows_per_table, self.max_ind_range, self.schema, self._file)
        self._file.check()
        order = self._order(epoch)[first:]
        yield from read_ahead(lambda number: make(self._read(source, number)), order, self.readers, group_size)

    def _order(self, epoch: int) -> Sequence[int]:
        """Return the batch numbers in the order in which `epoch` visits them."""
        if self.shuffle_seed is None:
            return range(self.batches_per_epoch)
        stream = np.random.default_rng(np.random.SeedSequence(self.shuffle_seed, spawn_key=(epoch,)))
        all_batches = math.ceil(self.rows / self.batch_size)
        order: Sequence[int] = stream.permutation(all_batches)[: self.batches_per_epoch].tolist()
        return order

    def _read(self, source: RowSource, number: int) -> RawBatch:
        start = number * self.batch_size
        size = min(self.batch_size, self.rows - start)
        row_bytes = self.schema.row_bytes
        rows = torch.empty(size, self.schema.columns, dtype=torch.int32, pin_memory=self.pin_memory)
        count = self._file.read_at(rows.numpy().data, start * row_bytes)
        if count < size * row_bytes:
            raise RunError(f"{self.path}: ends before row {start + size} of {self.rows}, {row_bytes} bytes each")
        return RawBatch(rows, start, source)


def decode(raw: RawBatch) -> Batch:
    """Decode rows in host memory: dense features become log(1 + max(x, 0)). RunError if a row is invalid."""
    schema, size = raw.source.schema, raw.size
    dense = np.empty((size, schema.dense_features), np.float32)
    indices = np.empty((schema.tables, size), np.int64)
    labels = np.empty((size, 1), np.float32)
    limits = np.array(raw.source.rows_per_table)
    invalid = _decode_rows(raw.rows.numpy(), limits, raw.source.max_ind_range, dense, indices, labels)
    if invalid >= 0:
        raise invalid_row_error(raw.source, raw.first_row + invalid // schema.columns, invalid % schema.columns)
    np.log(dense, out=dense)
    return Batch(torch.from_numpy(dense), torch.from_numpy(indices), None, torch.from_numpy(labels))


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


# The signature compiles the function (or loads it from the cache) on import, before the timed part of a run.
@numba.njit(
    "int64(int32[:, ::1], int64[::1], int64, float32[:, ::1], int64[:, ::1], float32[:, ::1])",
    nogil=True,
    cache=True,
)
def _decode_rows(
    rows: Rows,
    limits: npt.NDArray[np.int64],
    max_ind_range: int,
    dense: npt.NDArray[np.float32],
    indices: npt.NDArray[np.int64],
    labels: npt.NDArray[np.float32],
) -> int:
    """Fill labels, indices and dense with 1 + max(x, 0).

    Return row * columns + column of the first invalid label or index, -1 if all are valid.
    """
    columns = rows.shape[1]
    dense_features = dense.shape[1]
    first_id = 1 + dense_features
    invalid = -1
    for row in range(len(rows)):
        label = rows[row, 0]
        if invalid < 0 and not 0 <= label <= 1:
            invalid = row * columns
        labels[row, 0] = label
        for column in range(dense_features):
            dense[row, column] = np.float32(max(rows[row, 1 + column], 0)) + np.float32(1)
        for table in range(len(indices)):
            index = np.int64(rows[row, first_id + table])
            if max_ind_range > 0:
                index %= max_ind_range
            if invalid < 0 and not 0 <= index < limits[table]:
                invalid = row * columns + first_id + table
            indices[table, row] = index
    return invalid
