"""The binary file of a split: fixed-length rows of int32, read and decoded in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.buffer_pool import BufferPool
from mlperf.data.row_group import RowGroup, decoded_bytes
from mlperf.data.schema import CRITEO, RowSchema
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

        batch_size = min(self.batch_size, self.rows)
        batches = min(self._group_size, math.ceil(self.rows / self.batch_size))
        buffers = BufferPool(decoded_bytes(self.schema, batches, batch_size))

        def decoded(group: RowGroup) -> list[Batch]:
            batches = group.batches(buffers)
            return [batch.pin() for batch in batches] if self.pin_memory else batches

        return self._read_epoch(epoch, first, decoded, pin_memory=False)

    def raw_batches(self, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Yield the same batches undecoded and unchecked."""
        return self._read_epoch(epoch, first, RowGroup.raw_batches, pin_memory=self.pin_memory)

    @property
    def _group_size(self) -> int:
        """Number of batches that are read together."""
        return max(1, MIN_GROUP_ROWS // self.batch_size)

    @property
    def _group_rows(self) -> int:
        """Maximum number of rows that are read together."""
        return min(self._group_size * self.batch_size, self.rows)

    def _read_epoch(
        self, epoch: int, first: int, make: Callable[[RowGroup], list[Item]], *, pin_memory: bool
    ) -> Iterator[Item]:
        source = RowSource(self.path, self.rows_per_table, self.max_ind_range, self.schema, self._file)
        buffers = BufferPool(self._group_rows * self.schema.row_bytes)

        def take(size: int) -> torch.Tensor:
            # PyTorch reuses pinned memory itself, when the GPU has finished the copies from it.
            if pin_memory:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            return torch.from_numpy(buffers.take(size))

        self._file.check()
        order, size = self._order(epoch)[first:], self._group_size
        groups = (order[start : start + size] for start in range(0, len(order), size))
        with closing(
            read_ahead(lambda numbers: make(self._read(source, numbers, take)), groups, self.readers)
        ) as read:
            for batches in read:
                yield from batches

    def _order(self, epoch: int) -> Sequence[int]:
        """Return the batch numbers in the order in which `epoch` visits them."""
        if self.shuffle_seed is None:
            return range(self.batches_per_epoch)
        stream = np.random.default_rng(np.random.SeedSequence(self.shuffle_seed, spawn_key=(epoch,)))
        all_batches = math.ceil(self.rows / self.batch_size)
        order: Sequence[int] = stream.permutation(all_batches)[: self.batches_per_epoch].tolist()
        return order

    def _read(self, source: RowSource, numbers: Sequence[int], take: Callable[[int], torch.Tensor]) -> RowGroup:
        """Return the batches `numbers`, in memory from `take`. Neighbours in the file are read at once."""
        starts = [number * self.batch_size for number in numbers]
        sizes = [min(self.batch_size, self.rows - start) for start in starts]
        rows = take(sum(sizes) * self.schema.row_bytes).view(torch.int32).view(-1, self.schema.columns)
        done = stop = 0  # rows read, and rows up to the end of the current batch
        for start, size, following in zip(starts, sizes, [*starts[1:], -1], strict=True):
            stop += size
            if following != start + size:
                self._read_rows(rows[done:stop], start + size - (stop - done))
                done = stop
        return RowGroup(source, rows, starts, sizes)

    def _read_rows(self, rows: torch.Tensor, start: int) -> None:
        """Fill `rows`, int32 [N, columns], with those of the file from `start` on."""
        row_bytes = self.schema.row_bytes
        count = self._file.read_at(rows.numpy().data, start * row_bytes)
        if count < len(rows) * row_bytes:
            end = start + len(rows)
            raise RunError(f"{self.path}: ends before row {end} of {self.rows}, {row_bytes} bytes each")
