"""Random data: the numbers of one sequential draw from NumPy's legacy stream.

The order is that of existing runs: for all batches the dense features and then, for each table and sample,
one number for the count of ids and that many for the ids; then the targets of all batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RandomDataSettings:
    """What to draw. lookups: most ids per table and sample, `fixed`: exactly as many, before repeats go."""

    samples: int
    batch_size: int
    dense_features: int
    rows_per_table: tuple[int, ...]
    lookups: int
    fixed: bool
    round_targets: bool


class RandomBatches:
    """Uniform random data, a BatchSource. Every epoch visits the same batches, kept in memory."""

    def __init__(self, settings: RandomDataSettings, stream: np.random.RandomState) -> None:
        sizes = _batch_sizes(settings.samples, settings.batch_size)
        inputs = [_draw_inputs(settings, size, stream) for size in sizes]
        self._batches = []
        for size, (dense, indices, offsets) in zip(sizes, inputs, strict=True):
            targets = stream.rand(size, 1)
            if settings.round_targets:
                targets = targets.round()
            self._batches.append(
                Batch(
                    torch.from_numpy(dense.astype(np.float32)),
                    torch.from_numpy(indices),
                    torch.from_numpy(offsets),
                    torch.from_numpy(targets.astype(np.float32)),
                )
            )

    @property
    def samples(self) -> int:
        """Samples in an epoch."""
        return sum(batch.size for batch in self._batches)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self._batches)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `first` on, the same in every `epoch`."""
        return iter(self._batches[first:])


def _batch_sizes(samples: int, batch_size: int) -> list[int]:
    count = math.ceil(samples / batch_size)
    return [min(batch_size, samples - number * batch_size) for number in range(count)]


def _draw_inputs(
    settings: RandomDataSettings, size: int, stream: np.random.RandomState
) -> tuple[FloatArray, IntArray, IntArray]:
    """Return dense [B, dense features], indices [L] and offsets [T, B] of one batch.

    How many numbers the ids take is known only once they are drawn: as many as there could be are drawn from
    a copy of the stream, and the stream itself is then moved on by those that were used.
    """
    dense = stream.rand(size, settings.dense_features)
    rows = np.array(settings.rows_per_table, dtype=np.int64)
    most = len(rows) * size * (settings.lookups + 1)
    ahead = np.random.RandomState()
    ahead.set_state(stream.get_state(legacy=True))
    indices, offsets, used = _walk(ahead.rand(most), rows, size, settings.lookups, settings.fixed)
    stream.rand(used)
    return dense, indices, offsets


@numba.njit(cache=True)
def _walk(
    numbers: FloatArray, rows: IntArray, size: int, lookups: int, fixed: bool
) -> tuple[IntArray, IntArray, int]:
    """Turn a stream of uniform numbers into sorted distinct ids per table and sample."""
    indices = np.empty(len(rows) * size * lookups, np.int64)
    offsets = np.empty((len(rows), size), np.int64)
    at = 0
    total = 0
    for table in range(len(rows)):
        for sample in range(size):
            offsets[table, sample] = total
            count = lookups
            if not fixed:
                most = min(rows[table], lookups)
                count = int(np.round(max(1.0, numbers[at] * most)))
                at += 1
            drawn = np.sort(np.round(numbers[at : at + count] * (rows[table] - 1)).astype(np.int64))
            at += count
            for position in range(count):
                if position == 0 or drawn[position] != drawn[position - 1]:
                    indices[total] = drawn[position]
                    total += 1
    return indices[:total].copy(), offsets, at


def random_data_samples(data_size: int, num_batches: int, batch_size: int) -> int:
    """Return the number of samples that --data-size and --num-batches ask for."""
    return num_batches * batch_size if num_batches else data_size
