"""The share of one process in batches that are made in whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import SharedSource
from mlperf.distributed.processes import Processes


@dataclass(frozen=True)
class SharedBatches:
    """Batches of `whole`, a source that every process makes equally, of which this one takes its share."""

    whole: SharedSource
    processes: Processes

    @property
    def samples(self) -> int:
        """Number of samples in an epoch, over all processes."""
        return self.whole.samples

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.whole.batches_per_epoch

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the share of this process in each batch."""
        for batch in self.whole.batches(epoch, first):
            start, size = self.processes.share(batch.size)
            yield samples_of(batch, start, start + size)

    def sizes(self, epoch: int, first: int = 0) -> Iterator[int]:
        """Yield the number of samples of each batch, over all processes."""
        return self.whole.sizes(epoch, first)


def samples_of(batch: Batch, start: int, stop: int) -> Batch:
    """Return the samples from number `start` to before `stop`."""
    dense, labels = batch.dense[start:stop], batch.labels[start:stop]
    if batch.offsets is None:
        return Batch(dense, batch.indices[:, start:stop], None, labels)
    # The ids of a table are those of its samples, one after the other, and the tables follow one another.
    bounds = torch.cat((batch.offsets.flatten(), batch.offsets.new_tensor([len(batch.indices)])))
    tables = torch.arange(len(batch.offsets)) * batch.size
    firsts, ends = bounds[tables + start], bounds[tables + stop]  # of the own ids of each table, (T,)
    counts = ends - firsts
    own = zip(firsts.tolist(), ends.tolist(), strict=True)
    indices = torch.cat([batch.indices[first:end] for first, end in own])
    shifts = firsts - (counts.cumsum(0) - counts)
    return Batch(dense, indices, batch.offsets[:, start:stop] - shifts[:, None], labels, batch.ids_per_table)
