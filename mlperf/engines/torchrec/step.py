"""Training step of several processes, pipelined by TorchRec: the ids of the next batch travel during this one.

B samples of this process, T tables, D embedding dimension.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.sparse.jagged_tensor import KeyedTensor

from mlperf.data.source import BatchSource, SharedSource
from mlperf.distributed.processes import Processes, current
from mlperf.distributed.reductions import sum_over_processes
from mlperf.engines.protocol import LossSums
from mlperf.engines.torchrec import linear_products
from mlperf.engines.torchrec.features import (
    ShardedBatch,
    batch_of_all_shards,
    sharded_batch,
    table_name,
)
from mlperf.engines.torchrec.tables import ShardedTables
from mlperf.engines.warm_up import synthetic_batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.util.allocator import keep_freed_blocks


class DenseWork(nn.Module):
    """Everything but the tables: MLPs, interaction and loss, which all processes have."""

    def __init__(self, model: DLRM_Net, loss: Loss, precision: str, processes: Processes) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.processes = processes
        self.weight = 1.0  # of the loss; 0 makes every gradient 0
        self.names = [table_name(number) for number in range(len(model.architecture.rows_per_table))]
        self._precision = precision

    def forward(self, batch: ShardedBatch, found: KeyedTensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the share of the loss, scaled for the mean over processes, and the sums of `LossSums`."""
        logits = self.logits(batch, found)
        probability = self.model.probability(logits)
        if batch.size == 0:
            loss = logits.sum() * 0
            share = loss
        else:
            loss = self.loss(logits if self.loss.on_logits else probability, batch.labels)
            share = loss * (self.weight * batch.size * self.processes.size / batch.whole)
        correct = (probability.detach().round() == batch.labels).sum()
        return share, (loss.detach().double() * batch.size, correct)

    def logits(self, batch: ShardedBatch, found: KeyedTensor) -> torch.Tensor:
        """Return the logits [batch.size, 1], without those of the padding."""
        fused = linear_products.available(batch.dense.device, self._precision)
        with self._autocast(batch.dense.device):
            bottom = linear_products.bottom(self.model, batch.dense) if fused else self.model.bottom(batch.dense)
            # The rows arrive while the bottom MLP is computed, and their gradients leave before its backward pass.
            pooled = self._in_order(found)
            if fused:
                logits = linear_products.top_logits(self.model, bottom, pooled)
            else:
                logits = self.model.top_logits(bottom, pooled)
        return logits[: batch.size]

    def _in_order(self, found: KeyedTensor) -> torch.Tensor:
        """Return the pooled rows [B, T, D], which the planner orders by process. Waits for them."""
        values = found.values() if found.keys() == self.names else KeyedTensor.regroup([found], [self.names])[0]
        return values.view(len(values), len(self.names), -1)

    def _autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)


class _Trained(nn.Module):
    """The tables and the rest, in the form in which TorchRec's pipeline can be told apart."""

    def __init__(self, tables: nn.Module, dense: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        self.dense = dense

    def forward(self, batch: ShardedBatch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        return self.dense(batch, self.tables(batch.features))


class _Update:
    """Updates the dense parameters, and passes the learning rate to the tables, when TorchRec's pipeline says."""

    def __init__(self, optimizer: Optimizer, tables: ShardedTables) -> None:
        self.optimizer = optimizer
        self.fused = tables.sharded.fused_optimizer
        self.rate = 0.0

    def zero_grad(self) -> None:
        """Set the learning rate with which the backward pass updates the tables."""
        for group in self.fused.param_groups:
            group["lr"] = self.rate
        self.fused.zero_grad()

    def step(self) -> None:
        """Update the dense parameters."""
        self.optimizer.step(self.rate)


@dataclass(frozen=True)
class WholeBatch:
    """A batch of which each process trains its share. size: number of samples of all shares."""

    size: int


class _Feed:
    """The shares of this process in the batches of an epoch, for the pipeline, which takes them ahead."""

    def __init__(self, batches: Iterator[ShardedBatch]) -> None:
        self._batches = batches
        self._waiting: deque[ShardedBatch] = deque()
        self._sizes: deque[int] = deque()

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> ShardedBatch:
        if not self._waiting:
            self._read()
        return self._waiting.popleft()

    def _read(self) -> None:
        batch = next(self._batches)
        self._sizes.append(batch.whole)
        self._waiting.append(batch)

    def whole_batches(self) -> Iterator[WholeBatch]:
        """Yield each batch before the pipeline trains on it."""
        while True:
            if not self._sizes:
                try:
                    self._read()
                except StopIteration:
                    return
            yield WholeBatch(self._sizes.popleft())

    def close(self) -> None:
        """End reading ahead."""
        if isinstance(self._batches, Generator):
            self._batches.close()


class TorchRecStep:
    """Trains and scores with the other processes. All must call the same methods in the same order."""

    ranges: ClassVar[Mapping[str, str]] = {"score": "evaluation of a batch", "train": "training on a batch"}

    def __init__(
        self,
        model: DLRM_Net,
        loss: Loss,
        optimizer: Optimizer,
        precision: str,
        ids_per_table: Sequence[int] | None = None,
    ) -> None:
        assert isinstance(model.tables, ShardedTables)
        self.model = model
        self.device = model.tables.device
        self.processes = current()
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        else:
            keep_freed_blocks()
        self.sums = SharedSums.zeros(self.device)
        self._tables = model.tables.sharded
        self._rows, self._ids_per_table = model.architecture.rows_per_table, ids_per_table
        self._work = DenseWork(model, loss, precision, self.processes)
        dense: nn.Module = self._work
        if self.processes.size > 1:
            dense = DistributedDataParallel(dense, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self._update = _Update(optimizer, model.tables)
        self._pipeline = TrainPipelineSparseDist(_Trained(self._tables, dense), self._update, self.device)
        self._feed = _Feed(iter(()))

    def training_batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[WholeBatch]:
        """Yield the batches of `epoch` from number `first` on."""
        self._pipeline.reset()  # it still has batches of an epoch that was left early
        self._feed = _Feed(self.batches(data, epoch, first))
        try:
            yield from self._feed.whole_batches()
        finally:
            self._feed.close()

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[ShardedBatch]:
        """Yield the share of this process in the batches of `epoch` from number `first` on."""
        assert isinstance(data, SharedSource)
        for batch, whole in zip(data.batches(epoch, first), data.sizes(epoch, first), strict=True):
            yield sharded_batch(batch, whole, self.processes.largest_share(whole))

    def warm_up(self, batch_size: int) -> None:
        """Score a batch and train on two, which the pipeline overlaps, with a loss that has gradients of 0."""
        shards = self.processes.size
        count = self.processes.share(batch_size)[1]
        batch = batch_of_all_shards(synthetic_batch(self.model, count, self._ids_per_table), self._rows, shards)
        shared = sharded_batch(batch, batch_size, self.processes.largest_share(batch_size))
        self.score(shared)
        optimizer, before = self._update.optimizer, self.sums.both.clone()
        steps, rate = optimizer.steps, optimizer.rate
        self._feed = _Feed(iter([shared, shared]))
        self._work.weight = 0.0
        for whole in self._feed.whole_batches():
            self.train(whole, 0.0)
        self._work.weight = 1.0
        optimizer.steps, optimizer.rate = steps, rate
        self.sums.both.copy_(before)

    def train(self, batch: WholeBatch, rate: float | None) -> None:
        """Train on the next batch with learning rate `rate`."""
        assert rate is not None, "this engine does not accumulate gradients"
        self._update.rate = rate
        loss, correct = self._pipeline.progress(self._feed)
        self.sums.loss.add_(loss)
        self.sums.correct.add_(correct)

    def score(self, batch: ShardedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels of the share of this process."""
        self._pipeline.detach()  # the pipeline keeps what it has read ahead, and attaches itself again
        batch = batch.to(self.device, non_blocking=True)
        with torch.no_grad():
            found = self._tables(batch.features)
            probability = self.model.probability(self._work.logits(batch, found))
        return probability.squeeze(1), batch.labels.squeeze(1)

    def check(self) -> None:
        """Do nothing: the data source checked the batches when it read them."""


class SharedSums(LossSums):
    """Sums of which each process has its share."""

    def totals(self) -> tuple[float, float]:
        """Return the sums over all processes."""
        loss, correct = sum_over_processes(self.both).tolist()
        return loss, correct
