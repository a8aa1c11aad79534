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
    ends = torch.cat((batch.offsets.flatten()[1:], batch.offsets.new_tensor([len(batch.indices)])))
    lengths = (ends - batch.offsets.flatten()).view_as(batch.offsets)  # (T, B)
    samples = torch.zeros(batch.size, dtype=torch.bool)
    samples[start:stop] = True
    kept = samples.expand_as(lengths).flatten().repeat_interleave(lengths.flatten())
    own = lengths[:, start:stop].flatten()
    offsets = (own.cumsum(0) - own).view(len(lengths), stop - start)
    return Batch(dense, batch.indices[kept], offsets, labels, batch.ids_per_table)
