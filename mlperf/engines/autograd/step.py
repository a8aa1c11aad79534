"""Training step with autograd: any model, any optimizer, gradients accumulated over any number of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.autograd.scorer import AutogradScorer
from mlperf.engines.protocol import LossSums
from mlperf.engines.warm_up import synthetic_batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.rows import Lookup
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer


class AutogradStep(AutogradScorer):
    """Trains with PyTorch's backward pass and the optimizer's update."""

    ranges: ClassVar[Mapping[str, str]] = {
        "score": "evaluation of a batch",
        "look_up": "embedding lookup",
        "predict": "MLPs and interaction",
        "backward": "loss and backward pass",
        "update": "update of MLPs and embedding tables",
    }

    def __init__(self, model: DLRM_Net, loss: Loss, optimizer: Optimizer, precision: str) -> None:
        super().__init__(model, precision)
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)

    def training_batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return self.batches(data, epoch, first)

    def warm_up(self, batch_size: int) -> None:
        """Run forward and backward once; the weights stay unchanged."""
        batch = synthetic_batch(self.model, batch_size)
        lookup = self.look_up(batch)
        self.backward(self.predict(batch, lookup.pooled), batch.labels)
        self.model.zero_grad(set_to_none=True)

    def train(self, batch: Batch, rate: float | None) -> None:
        """Accumulate the gradients of `batch`; if `rate` is given, apply them all with this learning rate."""
        batch = batch.to(self.device)
        lookup = self.look_up(batch)
        logits = self.predict(batch, lookup.pooled)
        loss, probability = self.backward(logits, batch.labels)
        self.optimizer.add(lookup)
        self.sums.loss.add_(loss.detach().double(), alpha=batch.size)
        self.sums.correct.add_((probability.detach().round() == batch.labels).sum())
        if rate is not None:
            self.update(rate)

    def look_up(self, batch: Batch) -> Lookup:
        """Return the pooled embeddings."""
        return self.model.look_up(batch)

    def predict(self, batch: Batch, pooled: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, 1] for pooled embeddings [B, T, D]."""
        with self.autocast():
            return self.model.logits(batch.dense, pooled)

    def backward(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and the probabilities [B, 1], and add to the gradients of the weights."""
        probability = self.model.probability(logits)
        loss: torch.Tensor = self.loss(logits if self.loss.on_logits else probability, labels)
        loss.backward()
        return loss, probability

    def update(self, rate: float) -> None:
        """Apply the gradients."""
        self.optimizer.step(rate)
