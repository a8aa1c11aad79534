"""Training step of several processes, pipelined by TorchRec: the ids of the next batch travel during this one.

B samples of this process, T tables, D embedding dimension.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.sparse.jagged_tensor import KeyedTensor

from mlperf.data.source import BatchSource, SharedSource
from mlperf.distributed.processes import current
from mlperf.distributed.reductions import sum_over_processes
from mlperf.engines.observer import Observer
from mlperf.engines.protocol import LossSums
from mlperf.engines.torchrec.dense_work import DenseWork
from mlperf.engines.torchrec.features import ShardedBatch, batch_of_all_shards, sharded_batch
from mlperf.engines.torchrec.tables import ShardedTables
from mlperf.engines.warm_up import synthetic_batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.util.allocator import keep_freed_blocks


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

    def __init__(self, optimizer: Optimizer, tables: ShardedTables, work: DenseWork) -> None:
        self.optimizer = optimizer
        self.work = work
        self.fused = tables.sharded.fused_optimizer
        self.rate = 0.0

    def zero_grad(self) -> None:
        """Set the learning rate with which the backward pass updates the tables."""
        for group in self.fused.param_groups:
            group["lr"] = self.rate
        self.fused.zero_grad()

    def step(self) -> None:
        """Update the dense parameters."""
        self.work.backward_stop()
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
        self.work = DenseWork(model, loss, precision, self.processes)
        dense: nn.Module = self.work
        if self.processes.size > 1:
            dense = DistributedDataParallel(dense, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.optimizer = optimizer
        self._update = _Update(optimizer, model.tables, self.work)
        self._trained = _Trained(self._tables, dense)
        self.pipeline = TrainPipelineSparseDist(
            self._trained, self._update, self.device, custom_model_fwd=self._forward
        )
        self._feed = _Feed(iter(()))

    @property
    def observer(self) -> Observer | None:
        """Is told which part of a step runs."""
        return self.work.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self.work.observer = observer

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of a step and their methods. The backward pass is divided by `DenseWork`."""
        parts = {
            "pipeline.start_sparse_data_dist": "exchange of the ids",
            "pipeline.wait_sparse_data_dist": "exchange of the ids",
            "forward": "embedding lookup",
            "look_up": "embedding lookup",
            "optimizer.step": f"update of the {self.work.name}",
        }
        if self.device.type != "cpu":
            parts["pipeline.enqueue_batch"] = "copy of the batch to the device"
        return parts | {f"work.{method}": part for method, part in self.work.ranges.items()}

    def forward(self, batch: ShardedBatch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return what `DenseWork` returns for the rows of `batch`."""
        result: tuple[torch.Tensor, tuple[torch.Tensor, ...]] = self._trained(batch)
        return result

    def _forward(self, batch: ShardedBatch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Call `forward`, as a profile or a time breakdown may have replaced it."""
        return self.forward(batch)

    def look_up(self, batch: ShardedBatch) -> KeyedTensor:
        """Return the pooled rows of `batch`, outside of the pipeline."""
        found: KeyedTensor = self._tables(batch.features)
        return found

    def training_batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[WholeBatch]:
        """Yield the batches of `epoch` from number `first` on."""
        self.pipeline.reset()  # it still has batches of an epoch that was left early
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
        optimizer, before = self.optimizer, self.sums.both.clone()
        steps, rate = optimizer.steps, optimizer.rate
        self._feed = _Feed(iter([shared, shared]))
        self.work.weight = 0.0
        for whole in self._feed.whole_batches():
            self.train(whole, 0.0)
        self.work.weight = 1.0
        optimizer.steps, optimizer.rate = steps, rate
        self.sums.both.copy_(before)

    def train(self, batch: WholeBatch, rate: float | None) -> None:
        """Train on the next batch with learning rate `rate`."""
        assert rate is not None, "this engine does not accumulate gradients"
        self._update.rate = rate
        loss, correct = self.pipeline.progress(self._feed)
        self.sums.loss.add_(loss)
        self.sums.correct.add_(correct)

    def score(self, batch: ShardedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels of the share of this process."""
        self.pipeline.detach()  # the pipeline keeps what it has read ahead, and attaches itself again
        batch = batch.to(self.device, non_blocking=True)
        with torch.no_grad():
            probability = self.model.probability(self.work.logits(batch, self.look_up(batch)))
        return probability.squeeze(1), batch.labels.squeeze(1)

    def check(self) -> None:
        """Do nothing: the data source checked the batches when it read them."""


class SharedSums(LossSums):
    """Sums of which each process has its share."""

    def totals(self) -> tuple[float, float]:
        """Return the sums over all processes."""
        loss, correct = sum_over_processes(self.both).tolist()
        return loss, correct
