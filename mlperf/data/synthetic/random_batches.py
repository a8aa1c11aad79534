"""Random data, drawn from NumPy's legacy random stream in the order of the original DLRM implementation.

The order is: for each batch the dense features and then, for each table and sample, one number for the number of
ids and one for each id; after that the targets of all batches. The weights are drawn next from the same stream.
Therefore the stream is first advanced past the last target, without drawing batches. Its states at the start of
the inputs and of the targets of each batch are kept (2.5 KB each), and batches are drawn from them on demand.
"""

from __future__ import annotations

import threading
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
from mlperf.util.threads import raise_if_set

STATE_BYTES = 2 * 4 * 624  # kept for each batch, at least: the words of the two states
_IDS_PER_CALL = 1 << 21  # of compiled code, which Ctrl-C cannot interrupt
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
        count = -(-self.samples // settings.batch_size)
        state = legacy_stream.state_of(stream)
        self._inputs: list[State] = []
        self._targets: list[State] = []
        for number in range(count):
            self._inputs.append(legacy_stream.copy_of(state))
            self._skip_inputs(state, self._size(number))
        for number in range(count):
            self._targets.append(legacy_stream.copy_of(state))
            legacy_stream.skip(state, self._size(number))
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
        cancelled = threading.Event()
        numbers = range(first, self.batches_per_epoch)
        return read_ahead(lambda number: self._draw(number, cancelled), numbers, threads=1, cancelled=cancelled)

    def sizes(self, epoch: int, first: int = 0) -> Iterator[int]:
        """Yield the number of samples of each batch from number `first` on."""
        return map(self._size, range(first, self.batches_per_epoch))

    def _size(self, number: int) -> int:
        return min(self._settings.batch_size, self.samples - number * self._settings.batch_size)

    def _bags_in_parts(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of bags, each short enough for one call of compiled code.

        Bag t * size + s has the ids of sample s for table t.
        """
        bags = len(self._rows) * size
        step = max(1, _IDS_PER_CALL // self._settings.generated.lookups)
        return ((start, min(start + step, bags)) for start in range(0, bags, step))

    def _distribution(self) -> FloatArray:
        """Return mean, standard deviation, minimum and maximum of the ids as fractions; empty: uniform."""
        ids = self._settings.generated.ids
        gaussian = [ids.mean, ids.sigma, ids.minimum, ids.maximum] if ids.kind == "gaussian" else []
        return np.array(gaussian, np.float64)

    def _skip_inputs(self, state: State, size: int) -> None:
        """Advance the state past the inputs of a batch."""
        generated, is_gaussian = self._settings.generated, len(self._distribution()) > 0
        legacy_stream.skip(state, size * self._dense_features)
        rest: tuple[Any, ...] = (size, self._rows, generated.lookups, generated.fixed_lookups, is_gaussian)
        for start, stop in self._bags_in_parts(size):
            _skip_bags(*state, start, stop, *rest)

    def _draw(self, number: int, cancelled: threading.Event) -> Batch:
        size, state = self._size(number), legacy_stream.copy_of(self._inputs[number])
        dense = np.empty((size, self._dense_features))
        legacy_stream.fill(state, dense, cancelled)
        indices, offsets = self._draw_ids(state, size, cancelled)
        targets = np.empty((size, 1))
        legacy_stream.fill(legacy_stream.copy_of(self._targets[number]), targets, cancelled)
        if self._settings.generated.round_targets:
            targets = targets.round()
        return Batch(
            torch.from_numpy(dense.astype(np.float32)),
            torch.from_numpy(indices),
            torch.from_numpy(offsets),
            torch.from_numpy(targets.astype(np.float32)),
        )

    def _draw_ids(self, state: State, size: int, cancelled: threading.Event) -> tuple[IntArray, IntArray]:
        """Return indices [L] and offsets [T, B]. Ids are sorted and distinct per sample."""
        generated, distribution = self._settings.generated, self._distribution()
        # A sample keeps at most as many ids as the table has rows; the last one is drawn with its duplicates.
        kept = int(np.minimum(self._rows, generated.lookups).sum()) * size
        indices = np.empty(kept + generated.lookups, np.int64)
        offsets = np.empty((len(self._rows), size), np.int64)
        total = 0
        drawn = (self._rows, generated.lookups, generated.fixed_lookups, distribution)
        rest: tuple[Any, ...] = (*drawn, indices, offsets)
        for start, stop in self._bags_in_parts(size):
            raise_if_set(cancelled)
            total = _draw_bags(*state, start, stop, total, *rest)
        return indices[:total].copy(), offsets


@numba.njit(nogil=True, cache=True)
def _number_of_ids(words: npt.NDArray[np.uint32], position: IntArray, rows: int, lookups: int, fixed: bool) -> int:
    """Return the number of ids that a sample draws from a table of `rows` rows."""
    if fixed:
        return lookups
    return int(np.round(max(1.0, legacy_stream.uniform(words, position) * min(rows, lookups))))


@numba.njit(nogil=True, cache=True)
def _skip_bags(
    words: npt.NDArray[np.uint32],
    position: IntArray,
    pair: FloatArray,
    start: int,
    stop: int,
    size: int,
    rows: IntArray,
    lookups: int,
    fixed: bool,
    is_gaussian: bool,
) -> None:
    """Advance the state past the ids of the bags `start` to `stop` of a batch of `size` samples."""
    for bag in range(start, stop):
        count = _number_of_ids(words, position, rows[bag // size], lookups, fixed)
        if not is_gaussian:
            legacy_stream.skip_at_once(words, position, count)
        else:
            for _ in range(count):
                legacy_stream.normal(words, position, pair)


@numba.njit(nogil=True, cache=True)
def _draw_bags(
    words: npt.NDArray[np.uint32],
    position: IntArray,
    pair: FloatArray,
    start: int,
    stop: int,
    total: int,
    rows: IntArray,
    lookups: int,
    fixed: bool,
    gaussian: FloatArray,
    indices: IntArray,
    offsets: IntArray,
) -> int:
    """Draw the bags `start` to `stop` into `indices`, of which `total` are filled; return the new total.

    gaussian: mean, standard deviation, minimum and maximum of the ids as fractions of the table; empty: uniform.
    """
    size = offsets.shape[1]
    for bag in range(start, stop):
        table, sample = bag // size, bag % size
        last_row = rows[table] - 1
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
    return total
