"""Random data, drawn from NumPy's legacy random stream in the order of the original DLRM implementation.

The order is: for each batch the dense features and then, for each table and sample, one number for the number of
ids and one for each id; after that the targets of all batches. The weights are drawn next from the same stream.
Therefore the stream is first advanced past the last target, without drawing batches. Its states at the start of
the inputs and of the targets of each batch are kept (2.5 KB each), and batches are drawn from them on demand.
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
    """Random data as a BatchSource. Every epoch visits the same batches.

    dense_features: number of dense features. rows_per_table: rows of each embedding table.
    stream: source of the random numbers; the constructor advances it past the last target.
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
            _skip_inputs(*state, *self._compiled_settings(number))
        for number in range(count):
            self._targets.append(legacy_stream.copy_of(state))
            legacy_stream.skip(state[0], state[1], self._size(number))
        legacy_stream.set_state(stream, state)

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        return self._settings.generated_samples

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return len(self._inputs)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches from batch number `first` on, drawn ahead by a thread."""
        return read_ahead(self._draw, range(first, self.batches_per_epoch), threads=1)

    def _size(self, number: int) -> int:
        return min(self._settings.batch_size, self.samples - number * self._settings.batch_size)

    def _compiled_settings(self, number: int) -> tuple[Any, ...]:
        """Return the settings of one batch as arguments of the compiled functions."""
        generated, ids = self._settings.generated, self._settings.generated.ids
        gaussian = [ids.mean, ids.sigma, ids.minimum, ids.maximum] if ids.kind == "gaussian" else []
        return (
            self._size(number),
            self._dense_features,
            self._rows,
            generated.lookups,
            generated.fixed_lookups,
            np.array(gaussian, np.float64),
        )

    def _draw(self, number: int) -> Batch:
        state = legacy_stream.copy_of(self._inputs[number])
        dense, indices, offsets = _draw_inputs(*state, *self._compiled_settings(number))
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
def _number_of_ids(words: npt.NDArray[np.uint32], position: IntArray, rows: int, lookups: int, fixed: bool) -> int:
    """Return the number of ids that a sample draws from a table of `rows` rows."""
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
    """Advance the state past the inputs of one batch."""
    legacy_stream.skip(words, position, size * dense_features)
    for table in range(len(rows)):
        for _ in range(size):
            count = _number_of_ids(words, position, rows[table], lookups, fixed)
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
    """Return dense [B, dense features], indices [L] and offsets [T, B]. Ids are sorted and distinct per sample.

    gaussian: mean, standard deviation, minimum and maximum of the ids as fractions of the table; empty: uniform.
    """
    dense = np.empty((size, dense_features))
    legacy_stream.fill(words, position, dense)
    indices = np.empty(len(rows) * size * lookups, np.int64)
    offsets = np.empty((len(rows), size), np.int64)
    total = 0
    for table in range(len(rows)):
        last_row = rows[table] - 1
        for sample in range(size):
            offsets[table, sample] = total
            count = _number_of_ids(words, position, rows[table], lookups, fixed)
            ids = indices[total : total + count]
            for lookup in range(count):
                if len(gaussian) == 0:
                    fraction = legacy_stream.uniform(words, position)
                else:
                    mean, deviation, low, high = gaussian
                    fraction = mean + deviation * legacy_stream.normal(words, position, pair)
                    fraction = min(max(fraction, low), high)
                ids[lookup] = np.int64(np.round(fraction * last_row))
            ids.sort()
            kept = 0
            for lookup in range(count):
                if lookup == 0 or ids[lookup] != ids[kept - 1]:
                    ids[kept] = ids[lookup]
                    kept += 1
            total += kept
    return dense, indices[:total].copy(), offsets
