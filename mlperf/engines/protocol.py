"""One training step.

`GeneralStep` takes it with autograd and serves every flag. The faster ways, each for one kind of device, are
`cpu_step.py` and `gpu_step.py`; `mlperf.runner.model.make_step` decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mlperf.data.batch import Batch
from mlperf.engines.autograd.scorer import GeneralScorer, Scorer
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.tables import EmbeddingTables
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer


@dataclass(frozen=True)
class LossSums:
    """Sums over training samples, float64 scalars on the device: no step waits for them.

    loss: of the loss. correct: of predictions that round to their label. both: the two of them, [2].
    """

    both: torch.Tensor

    @classmethod
    def zeros(cls, device: torch.device) -> LossSums:
        """Return sums over no samples."""
        return cls(torch.zeros(2, dtype=torch.float64, device=device))

    @property
    def loss(self) -> torch.Tensor:
        """Return the first sum, to add to in place."""
        return self.both[0]

    @property
    def correct(self) -> torch.Tensor:
        """Return the second."""
        return self.both[1]

    def clear(self) -> None:
        """Begin again, in the same memory."""
        self.both.zero_()


class Layer(Protocol):
    """A linear layer of a faster way: weight [N, K] and bias [N], float32."""

    weight: torch.Tensor
    bias: torch.Tensor


class TrainingStep(Scorer, Protocol):
    """Predicts and trains. sums: over the samples trained on since they were cleared."""

    sums: LossSums

    def warm_up(self, batch_size: int) -> None:
        """Run everything once on made-up data, so that nothing is compiled or allocated in the timed part."""
        ...

    def train(self, batch: Any, rate: float | None) -> None:
        """Add the gradients of `batch`; apply all added so far with learning rate `rate`, unless it is None."""
        ...


def has_fast_ways(model: DLRM_Net) -> bool:
    """Return whether `model` is of the kind that the faster ways are written for: MLPerf's."""
    architecture = model.architecture
    return (
        isinstance(model.tables, EmbeddingTables)
        and architecture.weighted_pooling is None
        and architecture.interaction_op == "dot"
        and architecture.activation == "relu"
    )


def show_broken_weights(layers: Iterable[Layer], sums: LossSums) -> None:
    """Make a weight that is not a number show in the loss, where a ReLU may have turned what it did into 0."""
    for layer in layers:
        if not math.isfinite(float(layer.weight.sum()) + float(layer.bias.sum())):
            sums.loss.fill_(math.nan)


def made_up_batch(model: DLRM_Net, batch_size: int) -> Batch:
    """Return a batch that is valid for any model with one id per table."""
    device = model.tables.device
    return Batch(
        torch.zeros(batch_size, model.architecture.mlp_bot[0], device=device),
        torch.zeros(len(model.architecture.rows_per_table), batch_size, dtype=torch.int64, device=device),
        None,
        (torch.arange(batch_size, device=device) % 2).float().unsqueeze(1),
    )


class GeneralStep(GeneralScorer):
    """Training by autograd: any optimizer, any tables, sums of several batches."""

    def __init__(self, model: DLRM_Net, loss: Loss, optimizer: Optimizer, precision: str) -> None:
        super().__init__(model, precision)
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)

    def warm_up(self, batch_size: int) -> None:
        """Run forward and backward once; the weights stay."""
        batch = made_up_batch(self.model, batch_size)
        lookup = self.model.look_up(batch)
        with self.autocast():
            probability = self.model.predict(batch.dense, lookup.pooled)
        self.loss(probability, batch.labels).backward()
        self.model.zero_grad(set_to_none=True)

    def train(self, batch: Batch, rate: float | None) -> None:
        """Add the gradients of `batch`; apply all added so far with learning rate `rate`, unless it is None."""
        batch = batch.to(self.device)
        lookup = self.model.look_up(batch)
        with self.autocast():
            probability = self.model.predict(batch.dense, lookup.pooled)  # (B, 1)
        loss = self.loss(probability, batch.labels)
        loss.backward()
        self.optimizer.add(lookup)
        self.sums.loss.add_(loss.detach().double(), alpha=batch.size)
        self.sums.correct.add_((probability.detach().round() == batch.labels).sum())
        if rate is not None:
            self.optimizer.step(rate)
