"""Batches as TorchRec takes them. B samples of this process, T tables, L ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from mlperf.data.batch import Batch


def table_name(number: int) -> str:
    """Return TorchRec's name of a table and of its feature."""
    return f"table_{number}"


@dataclass
class ShardedBatch(Pipelineable):
    """The share of this process in a batch, padded with samples without ids to the size of the largest share.

    dense: float32 [B, dense features]. features: the ids. labels: float32 [size, 1].
    size: number of samples without the padding. whole: number of samples in the batch of all processes.
    """

    dense: torch.Tensor
    features: KeyedJaggedTensor
    labels: torch.Tensor
    size: int
    whole: int

    def to(self, device: torch.device, non_blocking: bool = False) -> ShardedBatch:
        """Return the batch on `device`."""
        return ShardedBatch(
            self.dense.to(device, non_blocking=non_blocking),
            self.features.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.size,
            self.whole,
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory until the work of `stream` is done."""
        for tensor in (self.dense, self.features, self.labels):
            tensor.record_stream(stream)


def sharded_batch(batch: Batch, whole: int, size: int) -> ShardedBatch:
    """Return the share `batch` in a batch of `whole` samples, padded to `size` samples."""
    padding = size - batch.size
    lengths = _lengths(batch)
    dense = batch.dense
    if padding:
        lengths = torch.nn.functional.pad(lengths, (0, padding))
        dense = torch.nn.functional.pad(dense, (0, 0, 0, padding))
    keys = [table_name(number) for number in range(len(lengths))]
    features = KeyedJaggedTensor(keys, batch.indices.flatten(), lengths=lengths.flatten())
    return ShardedBatch(dense, features, batch.labels, batch.size, whole)


def batch_of_all_shards(batch: Batch, rows_per_table: Sequence[int], shards: int) -> Batch:
    """Return `batch` with other ids, among them those of the first rows of all `shards` parts of each table."""
    numbers = torch.arange(batch.indices.numel(), device=batch.indices.device) % shards
    ids_per_table = _lengths(batch).sum(1)
    rows = torch.tensor(rows_per_table, device=numbers.device).repeat_interleave(ids_per_table)
    ids = (numbers * ((rows + shards - 1) // shards)).minimum(rows - 1)
    return Batch(batch.dense, ids.view_as(batch.indices), batch.offsets, batch.labels, batch.ids_per_table)


def _lengths(batch: Batch) -> torch.Tensor:
    """Return the number of ids of each table and sample, int32 [T, B]."""
    if batch.offsets is None:
        return torch.ones_like(batch.indices, dtype=torch.int32)
    return batch.bag_sizes().int()
