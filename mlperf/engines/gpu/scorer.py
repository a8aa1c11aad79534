"""Forward pass on a GPU: cuBLAS matrix products with Triton kernels in between.

The rows of a batch are copied to the device undecoded and decoded there.

B samples, T tables, D embedding dimension, K width of a layer's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mlperf.data.batch import RawBatch, RowSource
from mlperf.data.row_group import invalid_row_error
from mlperf.data.source import BatchSource
from mlperf.engines.gpu.kernels.decode import DENSE_WIDTH, NO_POSITION, POSITIONS_PER_ROW, decode
from mlperf.engines.gpu.kernels.interaction import interact
from mlperf.engines.gpu.kernels.last_layer import predict
from mlperf.engines.gpu.layer import GpuLayer
from mlperf.engines.gpu.upload import Upload
from mlperf.engines.layerwise import Activations, CrossLayer, Layer, run_layers
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.layers.mlp import linear_layers


def padded_width(width: int) -> int:
    """Return `width` rounded up to a multiple of 8: aligned rows make matrix products fast."""
    return -(-width // 8) * 8


class GpuScorer:
    """Evaluates a model.

    precision: "fp32", "tf32" or "bf16", for matrix products and activations.
    max_ind_range: if positive, ids are taken modulo it.
    """

    def __init__(self, model: DLRM_Net, precision: str, max_ind_range: int) -> None:
        assert isinstance(model.tables, FlatTables)
        self.model = model
        self.tables = model.tables
        self.device = model.tables.device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.allow_tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = self.allow_tf32
        # cuBLAS may split the sum over the batch in a weight gradient (split-K): accumulate the parts in float32.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        architecture = model.architecture
        # Valid ids fit in int32, so a larger modulus has no effect.
        self.modulus = max_ind_range if 0 < max_ind_range < 2**31 else -1
        self.threshold = float(architecture.loss_threshold)
        self.interacted_width = padded_width(model.top_widths[0])
        widths = [DENSE_WIDTH, *architecture.mlp_bot[1:]]
        self.bottom: Sequence[Layer[torch.Tensor]] = [
            GpuLayer(layer, width, self.dtype)
            for layer, width in zip(linear_layers(model.bot_l), widths, strict=False)
        ]
        *hidden, last = linear_layers(model.top_l)
        widths = [self.interacted_width, *model.top_widths[1:]]
        self.top: Sequence[Layer[torch.Tensor]] = [
            GpuLayer(layer, width, self.dtype) for layer, width in zip(hidden, widths, strict=False)
        ]
        self.cross: Sequence[CrossLayer[torch.Tensor]] = ()
        self.last_weight, self.last_bias = last.weight.data, last.bias.data
        rows = torch.tensor([0, *architecture.rows_per_table])
        self.table_sizes = rows[1:].to(self.device, torch.int32)
        self.table_starts = rows.cumsum(0)[:-1].to(self.device, torch.int32)
        self.first_row = torch.zeros((), dtype=torch.int64, device=self.device)
        self.invalid = torch.full((), NO_POSITION, dtype=torch.int64, device=self.device)
        self.source: RowSource | None = None
        self.upload = Upload(self.device)

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Return the undecoded batches of `epoch` from number `first` on."""
        assert hasattr(data, "raw_batches"), "the GPU engine needs a BinaryFile"
        batches: Iterator[RawBatch] = data.raw_batches(epoch, first)
        return batches

    def score(self, batch: RawBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities of a click and the labels, float32 [B] each, on the device."""
        self.note_source(batch)
        scores = self.score_rows(self.upload.copy(batch.rows))
        self.upload.done()
        return scores

    def score_rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities and labels of `rows`, int32 [B, columns] on the device."""
        activations = self.forward(rows)
        probabilities = predict(
            hidden=activations.top[-1], weight=self.last_weight, bias=self.last_bias, threshold=self.threshold
        )
        return probabilities, activations.labels

    def check(self) -> None:
        """Wait for the device. RunError if a row scored so far contains an invalid label or id."""
        position = int(self.invalid)
        if position != NO_POSITION:
            assert self.source is not None
            raise invalid_row_error(self.source, position // POSITIONS_PER_ROW, position % POSITIONS_PER_ROW)

    def forward(self, rows: torch.Tensor) -> Activations:
        """Decode `rows`, int32 [B, columns] on the device, and run the model up to its last layer."""
        dense, labels, embedding_rows = decode(
            rows=rows,
            table_sizes=self.table_sizes,
            table_starts=self.table_starts,
            first_row=self.first_row,
            invalid=self.invalid,
            modulus=self.modulus,
            dtype=self.dtype,
        )
        bottom = self.run_bottom(dense)
        interacted = self.look_up_and_interact(embedding_rows, bottom[-1])
        return Activations(bottom, self.run_top(interacted), labels, embedding_rows)

    def run_bottom(self, dense: torch.Tensor) -> list[torch.Tensor]:
        """Return the input of the bottom MLP and the output of each layer for `dense` [B, K]."""
        return run_layers(self.bottom, dense)

    def look_up_and_interact(self, embedding_rows: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the rows `embedding_rows`, as decoded."""
        return interact(
            tables=self.tables.weight,
            embedding_rows=embedding_rows,
            bottom=bottom,
            width=self.interacted_width,
            self_interaction=self.model.architecture.interaction_itself,
            allow_tf32=self.allow_tf32,
        )

    def run_top(self, interacted: torch.Tensor) -> list[torch.Tensor]:
        """Return the interaction and the output of each layer of the top MLP but the last."""
        return run_layers(self.top, interacted)

    def note_source(self, batch: RawBatch) -> None:
        """Record where the rows of `batch` come from, for error messages about invalid values."""
        self.source = batch.source
        self.first_row.fill_(batch.first_row)
