"""Training step on a GPU, captured once as a CUDA graph and replayed.

B samples, T tables, D embedding dimension.
"""

from __future__ import annotations

import torch

from mlperf.data.batch import RawBatch
from mlperf.data.schema import CRITEO
from mlperf.engines.gpu.kernels.embedding_update import update_rows
from mlperf.engines.gpu.kernels.interaction import interact_backward
from mlperf.engines.gpu.kernels.last_layer import loss_backward
from mlperf.engines.gpu.kernels.linear import update_weights
from mlperf.engines.gpu.scorer import GpuScorer
from mlperf.engines.layerwise import Activations, LayerwiseStep, mark_nonfinite_weights, require_rate
from mlperf.engines.protocol import LossSums
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import Optimizer
from mlperf.optim.sgd import SGD


class GpuStep(GpuScorer, LayerwiseStep[torch.Tensor, torch.Tensor]):
    """Trains a model with SGD, one batch per step."""

    def __init__(
        self, model: DLRM_Net, loss: Loss, optimizer: Optimizer, precision: str, max_ind_range: int
    ) -> None:
        super().__init__(model, precision, max_ind_range)
        assert isinstance(optimizer, SGD), "the GPU engine supports only SGD"
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)
        self.rate = torch.zeros((), device=self.device)
        self.d_last_weight = torch.zeros_like(self.last_weight)
        self.d_last_bias = torch.zeros_like(self.last_bias)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graph_rows = torch.empty(0, CRITEO.columns, dtype=torch.int32)

    def warm_up(self, batch_size: int) -> None:
        """Score a batch and train with learning rate 0; on a GPU, then capture a step as a CUDA graph."""
        rows = torch.zeros(batch_size, CRITEO.columns, dtype=torch.int32, device=self.device)
        self.score_rows(rows)
        self.rate.zero_()
        for _ in range(2):
            self.update(rows, self.rate)
        if self.device.type == "cuda":
            self._graph_rows = rows
            self._capture()
        self.sums.clear()

    def _capture(self) -> None:
        """Capture a step on `_graph_rows`. The graph owns the memory that the step allocates."""
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.update(self._graph_rows, self.rate)

    def train(self, batch: RawBatch, rate: float | None) -> None:
        """Train on `batch` with learning rate `rate`."""
        rate = require_rate(rate)
        self.note_source(batch)
        self.rate.fill_(rate)
        rows = self.upload.copy(batch.rows)
        if self._graph is not None and len(rows) == len(self._graph_rows):
            self._graph_rows.copy_(rows)
            self._graph.replay()
        else:
            self.update(rows, self.rate)
        self.upload.done()
        self.optimizer.note_step(rate)

    def check(self) -> None:
        """Check the rows, and set the loss to NaN if a weight is not finite: ReLU can hide it."""
        super().check()
        mark_nonfinite_weights((*self.bottom, *self.top), self.sums)

    def update_last_layer(self, activations: Activations, rate: torch.Tensor) -> torch.Tensor:
        """Add to the sums, update the last layer and return the gradient of its inputs."""
        gradient = loss_backward(
            hidden=activations.top[-1],
            weight=self.last_weight,
            bias=self.last_bias,
            labels=activations.labels,
            d_weight=self.d_last_weight,
            d_bias=self.d_last_bias,
            sums=self.sums.both,
            loss=self.loss.kind,
            class_weights=self.loss.weights,
            threshold=self.threshold,
        )
        for weight, d_weight in ((self.last_weight, self.d_last_weight), (self.last_bias, self.d_last_bias)):
            update_weights(weight=weight, copy=weight, gradient=d_weight, rate=rate, clear=True)
        return gradient

    def interaction_gradients(
        self, activations: Activations, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of the bottom MLP's output [B, D] and of the rows read."""
        return interact_backward(
            tables=self.tables.weight,
            embedding_rows=activations.ids,
            bottom=activations.bottom[-1],
            gradient=gradient,
            self_interaction=self.model.architecture.interaction_itself,
            allow_tf32=self.allow_tf32,
        )

    def update_rows(self, activations: Activations, gradients: torch.Tensor, rate: torch.Tensor) -> None:
        """Update the rows of the tables."""
        update_rows(tables=self.tables.weight, embedding_rows=activations.ids, d_embeddings=gradients, rate=rate)
