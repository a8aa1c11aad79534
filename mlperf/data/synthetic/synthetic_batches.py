"""Synthetic data: the ids of each table have given stack distances; dense features and targets are uniform."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt
import torch

from mlperf.data.batch import Batch
from mlperf.data.source import read_ahead
from mlperf.data.synthetic.stack_distances import StackDistances, TraceGenerator
from mlperf.settings.data import DataSettings
from mlperf.util.threads import raise_if_set

_REFERENCES_PER_CALL = 1 << 20  # of compiled code, which Ctrl-C cannot interrupt

IntArray = npt.NDArray[np.int64]


class SyntheticBatches:
    """Synthetic data as a BatchSource. Every epoch visits the same batches; the ids of each table form one trace.

    dense_features: number of dense features. rows_per_table: rows of each embedding table.
    distances: a distribution for each table. References are taken modulo the rows of the table; those of a sample
        are sorted and distinct.
    """

    def __init__(
        self,
        settings: DataSettings,
        *,
        dense_features: int,
        rows_per_table: Sequence[int],
        distances: Sequence[StackDistances],
    ) -> None:
        self._settings = settings
        self._dense_features = dense_features
        self._tables = list(zip(rows_per_table, distances, strict=True))

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        return self._settings.generated_samples

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return -(-self.samples // self._settings.batch_size)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `first` on, drawn ahead by a thread; draw and skip earlier ones."""
        generator = _BatchGenerator(self._settings, self._dense_features, self._tables)
        numbers = range(self.batches_per_epoch)
        cancelled = threading.Event()
        drawn = read_ahead(
            lambda number: generator.draw(number, cancelled), numbers, threads=1, cancelled=cancelled
        )
        with closing(drawn):  # before this generator ends: a zip would hold it
            for number, batch in zip(numbers, drawn, strict=True):
                if number >= first:
                    yield batch

    def sizes(self, epoch: int, first: int = 0) -> Iterator[int]:
        """Yield the number of samples of each batch from number `first` on."""
        for number in range(first, self.batches_per_epoch):
            yield _size(self._settings, number)


def _size(settings: DataSettings, number: int) -> int:
    """Return the number of samples of batch `number`."""
    return min(settings.batch_size, settings.generated_samples - number * settings.batch_size)


class _BatchGenerator:
    """One pass over the data. Batches can only be drawn in order, because a trace is a sequence."""

    def __init__(
        self, settings: DataSettings, dense_features: int, tables: Sequence[tuple[int, StackDistances]]
    ) -> None:
        self._settings = settings
        self._dense_features = dense_features
        streams = np.random.SeedSequence(settings.seed).spawn(len(tables) + 1)
        self._dense = np.random.default_rng(streams[0])
        self._tables = []
        for (rows, distances), stream in zip(tables, streams[1:], strict=True):
            generator = np.random.default_rng(stream)
            trace = TraceGenerator(distances, generator, padding=settings.generated.trace_padding)
            self._tables.append((rows, trace, generator))

    def draw(self, number: int, cancelled: threading.Event) -> Batch:
        """Return batch `number`, which must be the next one."""
        settings, generated = self._settings, self._settings.generated
        size = _size(settings, number)
        indices, counts = [], []
        for rows, trace, generator in self._tables:
            lookups = np.full(size, generated.lookups)
            if not generated.fixed_lookups:
                random_lookups = generator.random(size) * min(rows, generated.lookups)
                lookups = np.round(np.maximum(random_lookups, 1.0)).astype(np.int64)
            references = trace.draw(int(lookups.sum()), cancelled) % rows
            kept = _keep_distinct(references, lookups, cancelled)
            indices.append(references[: kept.sum()].copy())
            counts.append(kept)
        ends = np.concatenate(counts).cumsum()
        offsets = np.concatenate(([0], ends[:-1])).reshape(len(self._tables), size)
        targets = self._dense.random((size, 1))
        if generated.round_targets:
            targets = targets.round()
        return Batch(
            torch.from_numpy(self._dense.random((size, self._dense_features), dtype=np.float32)),
            torch.from_numpy(np.concatenate(indices)),
            torch.from_numpy(offsets),
            torch.from_numpy(targets.astype(np.float32)),
        )


def _keep_distinct(references: IntArray, counts: IntArray, cancelled: threading.Event) -> IntArray:
    """Sort and deduplicate the references of each sample in place; return the number of distinct ones per sample.

    The distinct references of all samples are then at the front of `references`.
    counts: number of references of each sample.
    """
    kept = np.zeros(len(counts), np.int64)
    starts = np.cumsum(counts) - counts
    # Each call gets the samples whose references start in the same block of _REFERENCES_PER_CALL.
    bounds = [*np.flatnonzero(np.diff(starts // _REFERENCES_PER_CALL, prepend=-1)).tolist(), len(counts)]
    total = 0
    for first, stop in pairwise(bounds):
        raise_if_set(cancelled)
        total = _keep_distinct_at_once(references, starts[first], counts[first:stop], kept[first:stop], total)
    return kept


@numba.njit(nogil=True, cache=True)
def _keep_distinct_at_once(references: IntArray, start: int, counts: IntArray, kept: IntArray, total: int) -> int:
    """Sort and deduplicate some samples, whose references begin at `start`; return the new total of distinct ones.

    total: number of distinct references of the samples before.
    """
    for sample in range(len(counts)):
        ordered = np.sort(references[start : start + counts[sample]])
        start += counts[sample]
        for index in range(len(ordered)):
            if index == 0 or ordered[index] != ordered[index - 1]:
                references[total] = ordered[index]
                total += 1
                kept[sample] += 1
    return total
