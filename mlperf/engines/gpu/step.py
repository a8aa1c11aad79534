"""Training step on a GPU, captured once as a CUDA graph and replayed.

B samples, T tables, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from mlperf.data.batch import RawBatch
from mlperf.data.schema import CRITEO, RowSchema
from mlperf.engines.device_stopwatch import DeviceStopwatch, Marks
from mlperf.engines.gpu.cross_layer import GpuCrossLayer
from mlperf.engines.gpu.kernels.interaction import interact_backward
from mlperf.engines.gpu.kernels.last_layer import loss_backward
from mlperf.engines.gpu.kernels.row_update import update_rows_once
from mlperf.engines.gpu.kernels.sgd_row_update import update_rows_by_sgd
from mlperf.engines.gpu.kernels.weight_update import DenseParameter, WeightUpdate
from mlperf.engines.gpu.layer import GpuLayer, sums_of_squares
from mlperf.engines.gpu.scorer import GpuScorer
from mlperf.engines.gpu.upload import RawRows
from mlperf.engines.layerwise import (
    Activations,
    LayerwiseStep,
    mark_nonfinite_weights,
    require_rate,
)
from mlperf.engines.protocol import LossSums
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.mlp import linear_layers
from mlperf.models.loss import Loss
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer
from mlperf.optim.sgd import SGD


class GpuStep(GpuScorer, LayerwiseStep[RawRows, torch.Tensor]):
    """Trains a model with SGD, Adagrad or row-wise Adagrad, one batch per step.

    The tables are updated as soon as the gradients of their rows are known, the MLPs at the end of the step.
    """

    backward_ranges: ClassVar[Mapping[str, str]] = {
        **LayerwiseStep.backward_ranges,
        "update_last_layer": "loss and gradient of the last layer",
        "update_top": "gradient of the top MLP",
        "update_cross": "gradient of the cross network",
        "update_bottom": "gradient of the bottom MLP",
    }

    def __init__(
        self,
        model: DLRM_Net,
        loss: Loss,
        optimizer: Optimizer,
        precision: str,
        max_ind_range: int,
        ids_per_table: Sequence[int] | None = None,
        *,
        schema: RowSchema = CRITEO,
        has_transforms: bool = False,
    ) -> None:
        super().__init__(
            *(model, precision, max_ind_range, ids_per_table), schema=schema, has_transforms=has_transforms
        )
        assert isinstance(optimizer, SGD | Adagrad), "the GPU engine supports only SGD and Adagrad"
        self.loss = loss
        self.optimizer = optimizer
        self.sums = LossSums.zeros(self.device)
        self.rate = torch.zeros((), device=self.device)
        self.d_last_weight = torch.zeros_like(self.last_weight)
        self.d_last_bias = torch.zeros_like(self.last_bias)
        self.epsilon = optimizer.epsilon if isinstance(optimizer, Adagrad) else 0.0
        self.row_sums = self._row_sums()
        # For rounding: the seed and the number of steps, which the graph reads from the device.
        self.counter = torch.tensor([optimizer.seed, optimizer.steps], device=self.device)
        self.d_hidden_bias = self._leave_last_relu_to_the_loss()
        self.weight_update = WeightUpdate(self._dense_parameters(), self.dtype, self.epsilon)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._measured_graph: torch.cuda.CUDAGraph | None = None
        self._marks: Marks = []  # of the measured graph
        self._graph_rows = self._first_rows(0)

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of a step and their methods."""
        update = {"update_mlps": f"update of the {self.model.dense_name}"}
        return {**super().ranges, **self.backward_parts(), **update}

    def _first_rows(self, batch_size: int) -> RawRows:
        """Return a batch, on the device, in which all labels, features and ids are 0."""
        ids = None if self.ids_per_table is None else batch_size * sum(self.ids_per_table)
        return RawRows(
            torch.zeros(batch_size, self.schema.columns, dtype=torch.int32, device=self.device),
            None if ids is None else torch.zeros(ids, dtype=torch.int32, device=self.device),
        )

    def warm_up(self, batch_size: int) -> None:
        """Score a batch and train with learning rate 0; on a GPU, then capture a step as a CUDA graph."""
        rows = self._first_rows(batch_size)
        self.score_rows(rows)
        self.rate.zero_()
        with self.optimizer.preserved(self.table_starts.long()):  # the rows that the batch reads
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
        if isinstance(self.observer, DeviceStopwatch):
            # Both graphs may share their memory, because nothing in it is used after a step.
            self._measured_graph = torch.cuda.CUDAGraph()
            with (
                torch.cuda.graph(self._measured_graph, pool=self._graph.pool()),
                self.observer.captured() as self._marks,
            ):
                self.update(self._graph_rows, self.rate)

    def _replay(self, graph: torch.cuda.CUDAGraph) -> None:
        """Train on `_graph_rows`, by the graph with the events of a stopwatch if the step is measured."""
        observer = self.observer
        if self._measured_graph is None or not isinstance(observer, DeviceStopwatch) or not observer.measures:
            graph.replay()
            return
        self._measured_graph.replay()
        observer.replayed(self._marks)

    def train(self, batch: RawBatch, rate: float | None) -> None:
        """Train on `batch` with learning rate `rate`."""
        rate = require_rate(rate)
        self.note_source(batch)
        self.rate.fill_(rate)
        if self.tables.weight.dtype != torch.float32:
            self.counter[1].fill_(self.optimizer.steps)
        rows = self.upload.copy(RawRows(batch.rows, batch.ids))
        if self._graph is not None and rows.is_like(self._graph_rows):
            self._graph_rows.copy_(rows)
            self._replay(self._graph)
        else:
            self.update(rows, self.rate)
        self.upload.done()
        self.optimizer.note_step(rate)

    def check(self) -> None:
        """Check the rows, and set the loss to NaN if a weight is not finite: ReLU can hide it."""
        super().check()
        mark_nonfinite_weights((*self.bottom, *self.top), self.sums, self.cross)

    def update_last_layer(self, activations: Activations, rate: torch.Tensor) -> torch.Tensor:
        """Add to the sums, compute the gradients of the last layer and return that of its inputs."""
        return loss_backward(
            hidden=activations.top[-1],
            weight=self.last_weight,
            bias=self.last_bias,
            labels=activations.labels,
            d_weight=self.d_last_weight,
            d_bias=self.d_last_bias,
            d_hidden_bias=self.d_hidden_bias,
            sums=self.sums.both,
            loss=self.loss.kind,
            class_weights=self.loss.weights,
            threshold=self.threshold,
        )

    def cross_gradient(self, x0: torch.Tensor) -> torch.Tensor:
        """Return uninitialized memory for the gradient of `x0` [B, N], in its dtype."""
        return torch.empty_like(x0)

    def interaction_gradients(
        self, activations: Activations, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of the bottom MLP's output [B, D] and of the rows read.

        With a cross network, the latter are `gradient` itself, that of all features [B, F * D]. So are they with
        several ids per table.
        """
        if self.cross:
            return gradient[:, : self.tables.dimension].contiguous(), gradient
        bottom, tables, embedding_rows = activations.bottom[-1], self.tables.weight, activations.ids
        if self.pooled is not None:
            tables, embedding_rows = self.pooled.features, self.pooled.rows
        d_bottom, d_embeddings = interact_backward(
            tables=tables,
            embedding_rows=embedding_rows,
            bottom=bottom,
            gradient=gradient,
            self_interaction=self.model.architecture.interaction_itself,
            allow_tf32=self.allow_tf32,
        )
        if self.pooled is None:
            return d_bottom, d_embeddings
        of_tables = d_embeddings.view(len(bottom), -1, bottom.shape[1])
        return d_bottom, torch.cat((d_bottom.unsqueeze(1), of_tables), 1).flatten(1)

    def update_rows(self, activations: Activations, gradients: torch.Tensor, rate: torch.Tensor) -> None:
        """Update the rows of the tables."""
        tables = self.tables.weight
        if self.row_sums is None and self.bags is None and tables.dtype == torch.float32:
            update_rows_by_sgd(tables=tables, embedding_rows=activations.ids, d_embeddings=gradients, rate=rate)
            return
        update_rows_once(
            tables=tables,
            sums=self.row_sums,
            embedding_rows=activations.ids,
            d_embeddings=gradients,
            rate=rate,
            counter=self.counter,
            epsilon=self.epsilon,
            bags=self.bags,
        )

    def update_mlps(self, rate: torch.Tensor) -> None:
        """Update all layers by their gradients."""
        self.weight_update.run(rate)

    def update(self, inputs: RawRows, rate: torch.Tensor) -> None:
        """Train on `inputs`, on the device."""
        super().update(inputs, rate)
        self.update_mlps(rate)

    def _leave_last_relu_to_the_loss(self) -> torch.Tensor | None:
        """Return the bias gradient of the last hidden layer, which the loss computes; None without one.

        The kernel of the loss has the output of that layer in registers, which saves another pass over it.
        """
        if not self.top:
            return None
        layer = self.top[-1]
        assert isinstance(layer, GpuLayer)
        layer.relu_is_done = True
        return layer.d_bias

    def _row_sums(self) -> torch.Tensor | None:
        """Return the sums of squares of the rows, float32 [R, D] or [R, 1]; None for SGD."""
        return self.optimizer.row_sums[self.tables.row_parameter] if isinstance(self.optimizer, Adagrad) else None

    def _dense_parameters(self) -> list[DenseParameter]:
        """Return the weights and biases of all layers, with their gradients and sums of squares."""
        parameters: list[DenseParameter] = []
        for layer in (*self.bottom, *self.cross, *self.top):
            assert isinstance(layer, GpuLayer | GpuCrossLayer)
            parameters += layer.parameters(self.optimizer)
        last = linear_layers(self.model.top_l)[-1]
        for parameter, gradient in ((last.weight, self.d_last_weight), (last.bias, self.d_last_bias)):
            squares = sums_of_squares(self.optimizer, parameter)
            parameters.append(DenseParameter(parameter.data, gradient, True, None, squares))
        return parameters
