"""The single binary file: 40 little-endian int32 per row (label, 13 integers, 26 indices), memory-mapped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch
from mlperf.data.criteo.row_format import COLUMNS, DENSE_FEATURES, ROW_BYTES
from mlperf.data.source import read_ahead
from mlperf.errors import RunError


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
        table = self._open()
        return read_ahead(lambda number: self._read(table, number), self._order(epoch)[first:], self.readers)

    def _order(self, epoch: int) -> Sequence[int]:
        everything = math.ceil(self.rows / self.batch_size)
        if self.shuffle_seed is None:
            return range(self.batches_per_epoch)
        stream = np.random.default_rng(np.random.SeedSequence(self.shuffle_seed, spawn_key=(epoch,)))
        order: Sequence[int] = stream.permutation(everything)[: self.batches_per_epoch].tolist()
        return order

    def _open(self) -> npt.NDArray[np.int32]:
        try:
            return np.memmap(self.path, dtype="<i4", mode="r", shape=(self.rows, COLUMNS))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path}: cannot be read as {self.rows} rows of {ROW_BYTES} bytes: {error}"
            ) from None

    def _read(self, table: npt.NDArray[np.int32], number: int) -> Batch:
        start = number * self.batch_size
        batch = self._decode(np.array(table[start : start + self.batch_size]), start)
        return batch.pin() if self.pin_memory else batch

    def _decode(self, rows: npt.NDArray[np.int32], start: int) -> Batch:
        labels = torch.from_numpy(rows[:, :1].astype(np.float32))  # (B, 1)
        integers = torch.from_numpy(rows[:, 1 : 1 + DENSE_FEATURES]).clamp(min=0)
        dense = torch.log(integers.float() + 1)  # (B, 13)
        indices = np.ascontiguousarray(rows[:, 1 + DENSE_FEATURES :].T).astype(np.int64)  # (T, B)
        if self.max_ind_range > 0:
            indices %= self.max_ind_range
        self._check(rows, indices, start)
        return Batch(dense, torch.from_numpy(indices), None, labels)

    def _check(self, rows: npt.NDArray[np.int32], indices: npt.NDArray[np.int64], start: int) -> None:
        """A foreign file may hold anything: an index outside its table must not reach the lookup."""
        limits = np.array(self.rows_per_table)[:, None]
        if indices.min() < 0 or (indices >= limits).any():
            table, sample = np.argwhere((indices < 0) | (indices >= limits))[0]
            raise RunError(
                f"{self.path}: row {start + sample + 1}, column {1 + DENSE_FEATURES + table + 1}: index "
                f"{indices[table, sample]} is not in table {table}, which has {self.rows_per_table[table]} rows"
            )
        if ((rows[:, 0] != 0) & (rows[:, 0] != 1)).any():
            sample = int(np.argmax((rows[:, 0] != 0) & (rows[:, 0] != 1)))
            raise RunError(
                f"{self.path}: row {start + sample + 1}, column 1: label {rows[sample, 0]} is not 0 or 1"
            )
