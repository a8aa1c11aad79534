"""Score batches on the CPU: oneDNN and MKL matrix products with fused loops in between.

B samples, T tables, D embedding dimension, K inputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.cpu.cross_layer import CpuCrossLayer
from mlperf.engines.cpu.features import Features, make_features
from mlperf.engines.cpu.layer import CpuLayer
from mlperf.engines.cpu.loops import last_layer
from mlperf.engines.cpu.workspace import Workspace
from mlperf.engines.layerwise import (
    Activations,
    CrossLayer,
    CrossValues,
    Layer,
    forward_ranges,
    run_cross_layers,
    run_layers,
)
from mlperf.engines.observer import Observer
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.layers.mlp import linear_layers
from mlperf.optim.optimizer import Optimizer
from mlperf.util.allocator import keep_freed_blocks


class CpuScorer:
    """Evaluates a model.

    precision: "fp32" or "bf16", dtype of matrix products and activations. optimizer: None if the model is not
    trained. ids_per_table: ids of each table and sample; None: one.
    """

    observer: Observer | None = None

    def __init__(
        self,
        model: DLRM_Net,
        precision: str,
        optimizer: Optimizer | None = None,
        ids_per_table: Sequence[int] | None = None,
    ) -> None:
        assert isinstance(model.tables, FlatTables)
        keep_freed_blocks()  # products and gradients are new tensors, as large as a layer or all pooled rows
        self.device = model.tables.device
        self.tables = model.tables
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.is_bfloat16 = self.dtype == torch.bfloat16
        self.bottom: Sequence[Layer[float]] = [
            CpuLayer(layer, self.dtype, optimizer) for layer in linear_layers(model.bot_l)
        ]
        *hidden, last = linear_layers(model.top_l)
        self.top: Sequence[Layer[float]] = [CpuLayer(layer, self.dtype, optimizer) for layer in hidden]
        self.last_weight, self.last_bias = last.weight.data, last.bias.data
        self.threshold = float(model.architecture.loss_threshold)
        self.workspace = Workspace()
        self.features: Features = make_features(
            model, ids_per_table, self.dtype, self.workspace, is_trained=optimizer is not None
        )
        self.cross = self._make_cross(model, optimizer)
        self._score = last_layer.score().prepare(
            weights=self.last_weight.data_ptr(),
            bias=self.last_bias.data_ptr(),
            width=self.last_weight.numel(),
            threshold=self.threshold,
            bfloat16=self.is_bfloat16,
        )

    def _make_cross(self, model: DLRM_Net, optimizer: Optimizer | None) -> Sequence[CrossLayer[float]]:
        """Return the layers of the cross network, if the model has one."""
        if not isinstance(model.interaction, CrossInteraction):
            return ()
        layers = list(model.interaction.layers())
        return [
            CpuCrossLayer(*layer, self.dtype, optimizer, self.workspace, number=number, layers=len(layers))
            for number, layer in enumerate(layers)
        ]

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of the forward pass and their methods."""
        return forward_ranges(has_cross=bool(self.cross))

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return data.batches(epoch, first)

    def check(self) -> None:
        """Do nothing: the data source checked the batches when it read them."""

    def score(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels, float32 [B] each."""
        return self.predict(self.forward(batch).top[-1]), batch.labels.squeeze(1)

    def predict(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the probabilities, float32 [B], for the inputs of the last layer [B, N]."""
        probabilities = torch.empty(len(hidden))
        args = self._score.args
        args.hidden, args.probabilities = hidden.data_ptr(), probabilities.data_ptr()
        args.samples = len(hidden)
        self._score.run()
        return probabilities

    def forward(self, batch: Batch) -> Activations:
        """Run the model up to its last layer."""
        bottom = self.run_bottom(batch.dense)
        interacted = self.look_up_and_interact(batch.indices, bottom[-1])
        crossed: list[CrossValues] = []
        if self.cross:
            interacted, crossed = self.run_cross(interacted)
        return Activations(bottom, self.run_top(interacted), batch.labels, batch.indices, crossed)

    def run_bottom(self, dense: torch.Tensor) -> list[torch.Tensor]:
        """Return the input of the bottom MLP and the output of each layer for `dense`, float32 [B, K]."""
        return run_layers(self.bottom, dense.to(self.dtype))

    def look_up_and_interact(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the rows `ids`, or the input of the cross network.

        ids: as `Batch.indices`.
        """
        return self.features.forward(ids, bottom)

    def run_cross(self, joined: torch.Tensor) -> tuple[torch.Tensor, list[CrossValues]]:
        """Return the output of the cross network [B, N] for its input [B, N], and the values of each layer."""
        return run_cross_layers(self.cross, joined)

    def run_top(self, interacted: torch.Tensor) -> list[torch.Tensor]:
        """Return the interaction and the output of each layer of the top MLP but the last."""
        return run_layers(self.top, interacted)
