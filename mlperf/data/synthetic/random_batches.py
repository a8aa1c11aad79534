"""Random data: the numbers of one sequential draw from NumPy's legacy stream.

The order is that of existing runs: for all batches the dense features and then, for each table and sample, one
number for the count of ids and that many for the ids; then the targets of all batches. Whoever draws next from
the stream, the weights do, must find it behind the last target: the stream is moved there first, without making a
batch, and its state at the start of each batch is kept (2.5 KB, twice). The batches are drawn when they are asked
for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch
from mlperf.data.source import read_ahead
from mlperf.data.synthetic import legacy_stream
from mlperf.data.synthetic.legacy_stream import State
from mlperf.settings.data import DataSettings

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class RandomBatches:
    """Random data, a BatchSource. Every epoch visits the same batches.

    dense_features: width of the dense features. rows_per_table: of each embedding table. stream: the numbers are
    drawn from it, and it is left behind the last target.
    """

    def __init__(
        self,
        settings: DataSettings,
        *,
        dense_features: int,
        rows_per_table: Sequence[int],
        stream: np.random.RandomState,
    ) -> None:
        self._settings = settings
        self._dense_features = dense_features
        self._rows = np.array(rows_per_table, dtype=np.int64)
        count = math.ceil(self.samples / settings.batch_size)
        state = legacy_stream.state_of(stream)
        self._inputs: list[State] = []
        self._targets: list[State] = []
        for number in range(count):
            self._inputs.append(legacy_stream.copy_of(state))
            _skip_inputs(*state, *self._numbers(number))
        for number in range(count):
            self._targets.append(legacy_stream.copy_of(state))
            legacy_stream.skip(state[0], state[1], self._size(number))
        legacy_stream.set_state(stream, state)

    @property
    def samples(self) -> int:
        """Samples in an epoch."""
        return self._settings.generated_samples

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self._inputs)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `first` on, the same in every `epoch`, drawn ahead by a thread."""
        return read_ahead(self._draw, range(first, self.batches_per_epoch), threads=1)

    def _size(self, number: int) -> int:
        return min(self._settings.batch_size, self.samples - number * self._settings.batch_size)

    def _numbers(self, number: int) -> tuple[Any, ...]:
        """Return the settings of one batch as compiled code takes them."""
        generated, ids = self._settings.generated, self._settings.generated.ids
        shape = [ids.mean, ids.sigma, ids.minimum, ids.maximum] if ids.kind == "gaussian" else []
        fixed, lookups = generated.fixed_lookups, generated.lookups
        return self._size(number), self._dense_features, self._rows, lookups, fixed, np.array(shape, np.float64)

    def _draw(self, number: int) -> Batch:
        state = legacy_stream.copy_of(self._inputs[number])
        dense, indices, offsets = _draw_inputs(*state, *self._numbers(number))
        targets = np.empty((self._size(number), 1))
        words, position, _ = legacy_stream.copy_of(self._targets[number])
        legacy_stream.fill(words, position, targets)
        if self._settings.generated.round_targets:
            targets = targets.round()
        return Batch(
            torch.from_numpy(dense.astype(np.float32)),
            torch.from_numpy(indices),
            torch.from_numpy(offsets),
            torch.from_numpy(targets.astype(np.float32)),
        )


@numba.njit(nogil=True, cache=True)
def _ids_of_sample(words: npt.NDArray[np.uint32], position: IntArray, rows: int, lookups: int, fixed: bool) -> int:
    """Return how many ids a sample draws from a table of `rows` rows."""
    if fixed:
        return lookups
    return int(np.round(max(1.0, legacy_stream.uniform(words, position) * min(rows, lookups))))


@numba.njit(nogil=True, cache=True)
def _skip_inputs(
    words: npt.NDArray[np.uint32],
    position: IntArray,
    pair: FloatArray,
    size: int,
    dense_features: int,
    rows: IntArray,
    lookups: int,
    fixed: bool,
    gaussian: FloatArray,
) -> None:
    """Move the state behind the inputs of one batch."""
    legacy_stream.skip(words, position, size * dense_features)
    for table in range(len(rows)):
        for _ in range(size):
            count = _ids_of_sample(words, position, rows[table], lookups, fixed)
            if len(gaussian) == 0:
                legacy_stream.skip(words, position, count)
            else:
                for _ in range(count):
                    legacy_stream.normal(words, position, pair)


@numba.njit(nogil=True, cache=True)
def _draw_inputs(
    words: npt.NDArray[np.uint32],
    position: IntArray,
    pair: FloatArray,
    size: int,
    dense_features: int,
    rows: IntArray,
    lookups: int,
    fixed: bool,
    gaussian: FloatArray,
) -> tuple[FloatArray, IntArray, IntArray]:
    """Return dense [B, dense features], indices [L] and offsets [T, B]; ids are sorted and distinct per sample."""
    dense = np.empty((size, dense_features))
    legacy_stream.fill(words, position, dense)
    indices = np.empty(len(rows) * size * lookups, np.int64)
    offsets = np.empty((len(rows), size), np.int64)
    total = 0
    for table in range(len(rows)):
        last_row = rows[table] - 1
        for sample in range(size):
            offsets[table, sample] = total
            count = _ids_of_sample(words, position, rows[table], lookups, fixed)
            drawn = indices[total : total + count]
            for place in range(count):
                if len(gaussian) == 0:
                    share = legacy_stream.uniform(words, position)
                else:
                    mean, deviation, least, most = gaussian
                    share = mean + deviation * legacy_stream.normal(words, position, pair)
                    share = min(max(share, least), most)
                drawn[place] = np.int64(np.round(share * last_row))
            drawn.sort()
            kept = 0
            for place in range(count):
                if place == 0 or drawn[place] != drawn[kept - 1]:
                    drawn[kept] = drawn[place]
                    kept += 1
            total += kept
    return dense, indices[:total].copy(), offsets
