"""Training step with autograd: any model, any optimizer, gradients accumulated over any number of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.autograd.scorer import AutogradScorer
from mlperf.engines.observer import BACKWARD_PASS, LOSS_GRADIENT, BackwardParts
from mlperf.engines.protocol import LossSums
from mlperf.engines.warm_up import synthetic_batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.rows import Lookup
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer


class AutogradStep(AutogradScorer):
    """Trains with PyTorch's backward pass and the optimizer's update."""

    def __init__(self, model: DLRM_Net, loss: Loss, optimizer: Optimizer, precision: str) -> None:
        super().__init__(model, precision)
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of a step and their methods. The backward pass is divided further, by `BackwardParts`."""
        return {
            **super().ranges,
            "compute_loss": "loss",
            "backward": LOSS_GRADIENT if self.device.type == "cpu" else BACKWARD_PASS,
            "optimizer.add": "update of the embedding tables",
            "optimizer.step": "update of the embedding tables",
            "optimizer.update_dense": f"update of the {self.model.dense_name}",
        }

    def training_batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return self.batches(data, epoch, first)

    def warm_up(self, batch_size: int) -> None:
        """Run forward and backward once; the weights stay unchanged."""
        batch = synthetic_batch(self.model, batch_size)
        self._accumulate(batch)
        self.model.zero_grad(set_to_none=True)

    def train(self, batch: Batch, rate: float | None) -> None:
        """Accumulate the gradients of `batch`; if `rate` is given, apply them all with this learning rate."""
        batch = self.to_device(batch)
        lookup, loss, probability = self._accumulate(batch)
        self.optimizer.add(lookup)
        self.sums.loss.add_(loss.detach().double(), alpha=batch.size)
        self.sums.correct.add_((probability.detach().round() == batch.labels).sum())
        if rate is not None:
            self.optimizer.step(rate)

    def _accumulate(self, batch: Batch) -> tuple[Lookup, torch.Tensor, torch.Tensor]:
        """Add to the gradients of the weights. Return the rows read, the loss and the probabilities [B, 1]."""
        parts = BackwardParts(self.observer)
        lookup = self.look_up(batch)
        with self.autocast():
            bottom = self.run_bottom(batch.dense)
            interacted = self.interact(bottom, lookup.pooled)
            logits = self.run_top(interacted)
        loss, probability = self.compute_loss(logits, batch.labels)
        if self.device.type != "cpu":
            parts.then(loss, LOSS_GRADIENT)
        parts.then(logits, "gradient of the top MLP")
        parts.then(interacted, f"gradient of the {self.model.interaction_name}")
        parts.then(bottom, "gradient of the bottom MLP")
        if not lookup.pooled.is_leaf:  # of compressed tables
            parts.then(lookup.pooled, "gradient of the embedding tables")
        self.backward(loss)
        return lookup, loss, probability

    def compute_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss, a scalar, and the probabilities [B, 1]."""
        probability = self.model.probability(logits)
        return self.loss(logits if self.loss.on_logits else probability, labels), probability

    def backward(self, loss: torch.Tensor) -> None:
        """Add to the gradients of the weights."""
        loss.backward()
