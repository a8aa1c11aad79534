"""Batches of rows that are stored in order: which rows, read ahead by threads, decoded or not."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cached_property

import numpy as np
import torch

from mlperf.data.batch import Batch, RawBatch, RowSource
from mlperf.data.buffer_pool import BufferPool
from mlperf.data.multi_hot import MultiHotTables
from mlperf.data.row_group import RowGroup, decoded_bytes
from mlperf.data.row_reader import IdReader, RowReader
from mlperf.data.schema import RowSchema
from mlperf.data.source import MIN_GROUP_ROWS, Item, read_ahead
from mlperf.distributed.processes import Processes

Take = Callable[[int], torch.Tensor]  # memory: number of bytes to uint8 [bytes]


class RowBatches(ABC):
    """One split of a data set, as a BatchSource.

    reader: reads the rows. rows: number of rows of the split. batch_size: number of rows of a batch.
    shuffle_seed: seed of the random order in which each epoch visits the batches; None: file order.
    limit: maximum number of batches in an epoch; 0: no limit.
    readers: number of threads that read ahead.
    multi_hot: tables that expand the ids, of which the rows have one per table; None: they are used as they are.
    processes: of which this one reads its share of each batch.
    """

    reader: RowReader
    rows: int
    batch_size: int
    shuffle_seed: int | None
    limit: int
    readers: int
    pin_memory: bool
    schema: RowSchema
    multi_hot: MultiHotTables | None
    processes: Processes

    @property
    @abstractmethod
    def source(self) -> RowSource:
        """The rows, and what is valid in them."""

    @property
    def id_reader(self) -> IdReader | None:
        """Reads several ids per table if they are stored beside the rows; None: each row has one per table."""
        return None

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch, including a smaller last one."""
        return min(self._all_batches, self.limit) if self.limit else self._all_batches

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        return min(self.rows, self.batches_per_epoch * self.batch_size)

    @property
    def ids_per_table(self) -> tuple[int, ...] | None:
        """Number of ids of each table in a sample; None: the one of the row."""
        if self.multi_hot is not None:
            return self.multi_hot.sizes
        if self.id_reader is not None:
            return self.id_reader.ids_per_table
        return None if self.schema.is_one_hot else self.schema.ids_per_table

    @property
    def seconds_reading(self) -> float:
        """Seconds that threads have spent on reading and decoding so far."""
        return sum(self._seconds)

    @cached_property
    def _seconds(self) -> list[float]:
        """Of each group of batches. Several threads append to it."""
        return []

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from batch number `first` on. RunError if a row is invalid."""

        batches = min(self._group_size, self._all_batches)
        ids = sum(self.ids_per_table or self.schema.ids_per_table)
        buffers = BufferPool(decoded_bytes(self.schema, ids, batches, self._largest_share))

        def decoded(group: RowGroup) -> list[Batch]:
            batches = group.batches(buffers)
            return [batch.pin() for batch in batches] if self.pin_memory else batches

        return self._read_epoch(epoch, first, decoded, pin_memory=False)

    def raw_batches(self, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Yield the same batches undecoded; only several ids per table are checked."""
        return self._read_epoch(epoch, first, RowGroup.raw_batches, pin_memory=self.pin_memory)

    def sizes(self, epoch: int, first: int = 0) -> Iterator[int]:
        """Yield the number of rows of each batch of `epoch` from number `first` on, over all processes."""
        for number in self._order(epoch)[first:]:
            yield self._size_of(number)

    def _size_of(self, number: int) -> int:
        return min(self.batch_size, self.rows - number * self.batch_size)

    @property
    def _all_batches(self) -> int:
        """Number of batches without a limit."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def _largest_share(self) -> int:
        """Number of rows of the largest share of a batch."""
        return self.processes.largest_share(min(self.batch_size, self.rows))

    @property
    def _group_size(self) -> int:
        """Number of batches whose shares are read together."""
        return max(1, MIN_GROUP_ROWS // self._largest_share)

    def _read_epoch(
        self, epoch: int, first: int, make: Callable[[RowGroup], list[Item]], *, pin_memory: bool
    ) -> Iterator[Item]:
        source, ids = self.source, self.ids_per_table
        group_rows = min(self._group_size * self._largest_share, self.rows)
        row_bytes = self.schema.row_bytes + 4 * sum(ids or ())
        buffers = BufferPool(group_rows * row_bytes)

        def take(size: int) -> torch.Tensor:
            # PyTorch reuses pinned memory itself, when the GPU has finished the copies from it.
            if pin_memory:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            return torch.from_numpy(buffers.take(size))

        self.reader.check()
        order, size = self._order(epoch)[first:], self._group_size
        groups = (order[start : start + size] for start in range(0, len(order), size))

        def read(numbers: Sequence[int]) -> list[Item]:
            started = time.perf_counter()
            made = make(self._read(source, numbers, take))
            self._seconds.append(time.perf_counter() - started)
            return made

        with closing(read_ahead(read, groups, self.readers)) as ahead:
            for batches in ahead:
                yield from batches

    def _order(self, epoch: int) -> Sequence[int]:
        """Return the batch numbers in the order in which `epoch` visits them."""
        if self.shuffle_seed is None:
            return range(self.batches_per_epoch)
        stream = np.random.default_rng(np.random.SeedSequence(self.shuffle_seed, spawn_key=(epoch,)))
        order: Sequence[int] = stream.permutation(self._all_batches)[: self.batches_per_epoch].tolist()
        return order

    def _read(self, source: RowSource, numbers: Sequence[int], take: Take) -> RowGroup:
        """Return the shares of this process in the batches `numbers`, in memory from `take`.

        Neighbours in the file are read at once.
        """
        shares = [self.processes.share(self._size_of(number)) for number in numbers]
        starts = [number * self.batch_size + first for number, (first, _) in zip(numbers, shares, strict=True)]
        sizes = [size for _, size in shares]
        count, columns, per_table = sum(sizes), self.schema.columns, self.ids_per_table
        ids_bytes = count * 4 * sum(per_table or ())
        memory = take(count * self.schema.row_bytes + ids_bytes).view(torch.int32)
        rows = memory[: count * columns].view(-1, columns)
        done = stop = 0  # rows read, and rows up to the end of the current batch
        for start, size, following in zip(starts, sizes, [*starts[1:], -1], strict=True):
            stop += size
            if following != start + size and stop > done:
                self.reader.read(rows[done:stop].numpy(), start + size - (stop - done))
                done = stop
        if per_table is None:
            return RowGroup(source, rows, starts, sizes)
        group = RowGroup(source, rows, starts, sizes, memory[count * columns :], per_table)
        if self.multi_hot is not None:
            group.expand_ids(self.multi_hot)
        elif self.id_reader is not None:
            group.read_ids(self.id_reader)
        else:
            group.take_ids()
        return group
