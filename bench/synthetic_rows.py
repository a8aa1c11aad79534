"""Rows of the Criteo binary file with random values, for measurements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np

from mlperf.data.batch import Batch, RawBatch
from mlperf.data.binary import BinaryFile
from mlperf.data.schema import CRITEO

_ROWS_AT_ONCE = 1 << 16


def synthetic_rows(
    samples: int, table_rows: Sequence[int], stream: np.random.Generator, *, uniform: bool = False
) -> np.ndarray:
    """Return rows of the Criteo binary file, int32 [samples, 40].

    Ids are log-uniform in each table, so that a few are frequent, as in real data; or uniform.
    """
    rows = np.empty((samples, CRITEO.columns), CRITEO.dtype)
    rows[:, 0] = stream.random(samples) < 0.25
    rows[:, CRITEO.dense_columns] = stream.geometric(0.05, (samples, CRITEO.dense_features)) - 1
    for column, count in zip(rows[:, CRITEO.id_columns].T, table_rows, strict=True):
        drawn = count * stream.random(samples) if uniform else count ** stream.random(samples) - 1
        column[:] = np.minimum(drawn, count - 1)
    return rows


def expanded_ids(ids: np.ndarray, table_rows: Sequence[int], ids_per_table: Sequence[int]) -> np.ndarray:
    """Return several ids for each of `ids`, [samples, tables], as the cpu and gpu engines take them: int32 [L].

    Like the benchmark's, they are a fixed function of the one id, which is the first of them, and uniform. A hash
    computes them, because the benchmark's tables of drawn ids take 24 GB.
    """
    parts = []
    for column, rows, size in zip(ids.T, table_rows, ids_per_table, strict=True):
        mixed = column.astype(np.uint64)[:, None] * np.uint64(size) + np.arange(size, dtype=np.uint64)
        mixed = (mixed + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # constants of SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        expanded = ((mixed >> np.uint64(33)) % np.uint64(rows)).astype(np.int32)
        expanded[:, 0] = column
        parts.append(expanded.reshape(-1))
    return np.concatenate(parts)


def write_rows(path: Path, samples: int, table_rows: Sequence[int]) -> None:
    """Write a binary file of `samples` rows with log-uniform ids."""
    stream = np.random.default_rng(1)
    with path.open("wb") as file:
        for start in range(0, samples, _ROWS_AT_ONCE):
            file.write(synthetic_rows(min(_ROWS_AT_ONCE, samples - start), table_rows, stream).tobytes())


class Repeated:
    """A source of `samples` samples that reads a shorter file repeatedly, always to its end."""

    def __init__(self, source: BinaryFile, samples: int) -> None:
        self._source = source
        self.batches_per_epoch = math.ceil(samples / source.batch_size)
        self.samples = self.batches_per_epoch * source.batch_size

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield batches."""
        endless = chain.from_iterable(map(self._source.batches, repeat(0)))
        return islice(endless, first, self.batches_per_epoch)

    def sizes(self, epoch: int, first: int = 0) -> Iterator[int]:
        """Yield the number of samples of each batch, over all processes."""
        return repeat(self._source.batch_size, self.batches_per_epoch - first)

    def raw_batches(self, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Yield undecoded batches."""
        endless = chain.from_iterable(map(self._source.raw_batches, repeat(0)))
        return islice(endless, first, self.batches_per_epoch)
