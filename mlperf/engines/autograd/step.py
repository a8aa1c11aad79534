"""Training step with autograd: any model, any optimizer, gradients accumulated over any number of batches."""

from __future__ import annotations

import torch

from mlperf.data.batch import Batch
from mlperf.engines.autograd.scorer import AutogradScorer
from mlperf.engines.protocol import LossSums
from mlperf.engines.warm_up import synthetic_batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer


class AutogradStep(AutogradScorer):
    """Trains with PyTorch's backward pass and the optimizer's update."""

    def __init__(self, model: DLRM_Net, loss: Loss, optimizer: Optimizer, precision: str) -> None:
        super().__init__(model, precision)
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)

    def warm_up(self, batch_size: int) -> None:
        """Run forward and backward once; the weights stay unchanged."""
        batch = synthetic_batch(self.model, batch_size)
        lookup = self.model.look_up(batch)
        self.loss(self._predict(batch, lookup.pooled), batch.labels).backward()
        self.model.zero_grad(set_to_none=True)

    def train(self, batch: Batch, rate: float | None) -> None:
        """Accumulate the gradients of `batch`; if `rate` is given, apply them all with this learning rate."""
        batch = batch.to(self.device)
        lookup = self.model.look_up(batch)
        probability = self._predict(batch, lookup.pooled)
        loss = self.loss(probability, batch.labels)
        loss.backward()
        self.optimizer.add(lookup)
        self.sums.loss.add_(loss.detach().double(), alpha=batch.size)
        self.sums.correct.add_((probability.detach().round() == batch.labels).sum())
        if rate is not None:
            self.optimizer.step(rate)

    def _predict(self, batch: Batch, pooled: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            return self.model.predict(batch.dense, pooled)  # (B, 1)
