"""Score batches on the CPU: oneDNN and MKL matrix products with fused loops in between.

B samples, T tables, D embedding dimension, K inputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mlperf.data.batch import Batch
from mlperf.data.source import BatchSource
from mlperf.engines.cpu.layer import CpuLayer
from mlperf.engines.cpu.loops import interaction, last_layer
from mlperf.engines.cpu.loops.table_rows import row_kind
from mlperf.engines.cpu.workspace import Workspace
from mlperf.engines.layerwise import Activations, CrossLayer, Layer, run_layers
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.layers.mlp import linear_layers
from mlperf.optim.optimizer import Optimizer


class CpuScorer:
    """Evaluates a model.

    precision: "fp32" or "bf16", dtype of matrix products and activations. optimizer: None if the model is not
    trained.
    """

    def __init__(self, model: DLRM_Net, precision: str, optimizer: Optimizer | None = None) -> None:
        assert isinstance(model.tables, FlatTables)
        architecture = model.architecture
        self.device = model.tables.device
        self.tables = model.tables
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.is_bfloat16 = self.dtype == torch.bfloat16
        self.bottom: Sequence[Layer[float]] = [
            CpuLayer(layer, self.dtype, optimizer) for layer in linear_layers(model.bot_l)
        ]
        *hidden, last = linear_layers(model.top_l)
        self.top: Sequence[Layer[float]] = [CpuLayer(layer, self.dtype, optimizer) for layer in hidden]
        self.cross: Sequence[CrossLayer[float]] = ()
        self.last_weight, self.last_bias = last.weight.data, last.bias.data
        self.threshold = float(architecture.loss_threshold)
        self.interaction_width = model.top_widths[0]
        self.workspace = Workspace()
        sizes = (len(architecture.rows_per_table), architecture.dimension)
        self.scratch = torch.empty(torch.get_num_threads() * interaction.scratch_size(*sizes))
        self.row_kind = row_kind(self.tables.weight.dtype)
        self._interact = interaction.make_forward(*sizes, architecture.interaction_itself, self.row_kind).prepare(
            first_row=self.tables.first_row.data_ptr(),
            block=self.tables.weight.data_ptr(),
            scratch=self.scratch.data_ptr(),
            rows=len(self.tables.weight),
            bfloat16=self.is_bfloat16,
        )
        self._score = last_layer.score().prepare(
            weights=self.last_weight.data_ptr(),
            bias=self.last_bias.data_ptr(),
            width=self.last_weight.numel(),
            threshold=self.threshold,
            bfloat16=self.is_bfloat16,
        )

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Return the batches of `epoch` from number `first` on."""
        return data.batches(epoch, first)

    def check(self) -> None:
        """Do nothing: the data source checked the batches when it read them."""

    def score(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted probabilities and the labels, float32 [B] each."""
        hidden = self.forward(batch).top[-1]
        probabilities = torch.empty(batch.size)
        args = self._score.args
        args.hidden, args.probabilities = hidden.data_ptr(), probabilities.data_ptr()
        args.samples = batch.size
        self._score.run()
        return probabilities, batch.labels.squeeze(1)

    def forward(self, batch: Batch) -> Activations:
        """Run the model up to its last layer."""
        bottom = self.run_bottom(batch.dense)
        interacted = self.look_up_and_interact(batch.indices, bottom[-1])
        return Activations(bottom, self.run_top(interacted), batch.labels, batch.indices)

    def run_bottom(self, dense: torch.Tensor) -> list[torch.Tensor]:
        """Return the input of the bottom MLP and the output of each layer for `dense`, float32 [B, K]."""
        return run_layers(self.bottom, dense.to(self.dtype))

    def look_up_and_interact(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the rows `ids` [T, B]."""
        interacted = self.workspace.take("interacted", (len(bottom), self.interaction_width), self.dtype)
        args = self._interact.args
        args.ids, args.bottom, args.interacted = ids.data_ptr(), bottom.data_ptr(), interacted.data_ptr()
        args.samples = len(bottom)
        self._interact.run()
        return interacted

    def run_top(self, interacted: torch.Tensor) -> list[torch.Tensor]:
        """Return the interaction and the output of each layer of the top MLP but the last."""
        return run_layers(self.top, interacted)
