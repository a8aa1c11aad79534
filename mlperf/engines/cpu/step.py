"""Training step on the CPU: oneDNN and MKL matrix products with fused loops in between.

B samples, T tables, D embedding dimension, N inputs of the last layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mlperf.data.batch import Batch
from mlperf.engines.cpu.layer import LastLayerUpdater
from mlperf.engines.cpu.loops import last_layer
from mlperf.engines.cpu.row_updater import make_row_updater
from mlperf.engines.cpu.scorer import CpuScorer
from mlperf.engines.layerwise import Activations, LayerwiseStep, mark_nonfinite_weights, require_rate
from mlperf.engines.protocol import LossSums
from mlperf.engines.warm_up import synthetic_batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.mlp import linear_layers
from mlperf.models.loss import MIN_LOG, MIN_VARIANCE, Loss
from mlperf.optim.optimizer import Optimizer

# Constants of the loop of the last layer, by the values of --loss-function.
_LOSSES = {
    "mse": last_layer.SQUARED_ERROR,
    "bce": last_layer.CROSS_ENTROPY,
    "wbce": last_layer.CROSS_ENTROPY,
    "bce_logits": last_layer.LOGIT_CROSS_ENTROPY,
}


class CpuStep(CpuScorer, LayerwiseStep[Batch, float]):
    """Trains a model, one batch per step."""

    def __init__(
        self,
        model: DLRM_Net,
        loss: Loss,
        optimizer: Optimizer,
        precision: str,
        ids_per_table: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model, precision, optimizer, ids_per_table)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)
        self._ids_per_table = ids_per_table
        sizes = [1] * len(self.tables.rows_per_table) if self.cross and ids_per_table is None else ids_per_table
        self._row_updater = make_row_updater(self.tables, optimizer, sizes)
        self._last_updater = LastLayerUpdater(linear_layers(model.top_l)[-1], optimizer)
        width = self.last_weight.numel()
        self._partial_sums = torch.zeros(torch.get_num_threads(), width + 3, dtype=torch.float64)
        weight_of_0, weight_of_1 = loss.weights
        self._last_layer = last_layer.make_last_layer(MIN_LOG, MIN_VARIANCE).prepare(
            weights=self.last_weight.data_ptr(),
            bias=self.last_bias.data_ptr(),
            sums=self._partial_sums.data_ptr(),
            width=width,
            loss=_LOSSES[loss.kind],
            weight_of_0=weight_of_0,
            weight_of_1=weight_of_1,
            threshold=self.threshold,
            bfloat16=self.is_bfloat16,
        )

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of a step and their methods."""
        return {**super().ranges, **self.backward_parts()}

    def warm_up(self, batch_size: int) -> None:
        """Score a batch and train with learning rate 0."""
        batch = synthetic_batch(self.model, batch_size, self._ids_per_table)
        self.score(batch)
        with self.optimizer.preserved(self.tables.first_row):  # the rows that the batch reads
            self.update(batch, 0.0)
        self.sums.clear()

    def train(self, batch: Batch, rate: float | None) -> None:
        """Train on `batch` with learning rate `rate`."""
        rate = require_rate(rate)
        self.update(batch, rate)
        self.optimizer.note_step(rate)

    def check(self) -> None:
        """Set the loss to NaN if a weight is not finite."""
        mark_nonfinite_weights((*self.bottom, *self.top), self.sums, self.cross)

    def update_last_layer(self, activations: Activations, rate: float) -> torch.Tensor:
        """Add to the sums, update the last layer and return the gradient of its inputs [B, N]."""
        hidden = activations.top[-1]
        gradient = self.workspace.take("hidden gradient", hidden.shape, self.dtype)
        self._partial_sums.zero_()
        args = self._last_layer.args
        args.hidden, args.hidden_gradient = hidden.data_ptr(), gradient.data_ptr()
        args.labels, args.samples = activations.labels.data_ptr(), len(hidden)
        self._last_layer.run()
        total = self._partial_sums.sum(0)  # (N + 3,)
        width = hidden.shape[1]
        self._last_updater.update(total[: width + 1], rate)
        self.sums.both.add_(total[width + 1 :])
        return gradient

    def interaction_gradients(
        self, activations: Activations, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of the bottom MLP's output [B, D] and of the bags, float32 [B, T, D]."""
        return self.features.backward(activations.ids, activations.bottom[-1], gradient)

    def update_rows(self, activations: Activations, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows of the tables. gradients: float32 [B, T, D]."""
        self._row_updater.update(activations.ids, gradients, rate)

    def cross_gradient(self, x0: torch.Tensor) -> torch.Tensor:
        """Return uninitialized memory for the gradient of `x0`, float32 [B, N]."""
        return self.workspace.take("joined gradient", x0.shape, torch.float32)
