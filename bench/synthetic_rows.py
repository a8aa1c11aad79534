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

    def raw_batches(self, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Yield undecoded batches."""
        endless = chain.from_iterable(map(self._source.raw_batches, repeat(0)))
        return islice(endless, first, self.batches_per_epoch)
