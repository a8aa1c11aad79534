"""Forward pass on a GPU: cuBLAS matrix products with Triton kernels in between.

The rows of a batch are copied to the device undecoded and decoded there.

B samples, T tables, D embedding dimension, K width of a layer's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from mlperf.data.batch import RawBatch, RowSource
from mlperf.data.row_group import invalid_row_error
from mlperf.data.schema import CRITEO, LOG1P, RowSchema
from mlperf.data.source import BatchSource
from mlperf.engines.gpu.bags import Bags, PooledRows
from mlperf.engines.gpu.cross_layer import GpuCrossLayer
from mlperf.engines.gpu.kernels.decode import (
    NO_POSITION,
    decode,
    dense_transforms,
    dense_width,
    number_rows,
    positions_per_row,
    row_format,
)
from mlperf.engines.gpu.kernels.interaction import interact
from mlperf.engines.gpu.kernels.last_layer import predict
from mlperf.engines.gpu.kernels.pooling import pool
from mlperf.engines.gpu.layer import GpuLayer
from mlperf.engines.gpu.upload import RawRows, Upload
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


def padded_width(width: int) -> int:
    """Return `width` rounded up to a multiple of 8: aligned rows make matrix products fast."""
    return -(-width // 8) * 8


class GpuScorer:
    """Evaluates a model.

    precision: "fp32", "tf32" or "bf16", for matrix products and activations.
    max_ind_range: if positive, ids are taken modulo it.
    ids_per_table: number of ids of each table and sample if batches contain `ids`.
    schema: layout of the rows. has_transforms: whether their dense features may be transformed when they are read.
    """

    observer: Observer | None = None

    def __init__(
        self,
        model: DLRM_Net,
        precision: str,
        max_ind_range: int,
        ids_per_table: Sequence[int] | None = None,
        *,
        schema: RowSchema = CRITEO,
        has_transforms: bool = False,
    ) -> None:
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
        self.ids_per_table = ids_per_table
        self.cross: Sequence[CrossLayer[torch.Tensor]] = ()
        self.bags: Bags | None = None
        if ids_per_table is not None or isinstance(model.interaction, CrossInteraction):
            self.bags = Bags.of(ids_per_table or [1] * len(architecture.rows_per_table), self.device)
        self.pooled: PooledRows | None = None
        self.interacted_width = padded_width(model.top_widths[0])
        if isinstance(model.interaction, CrossInteraction):
            layers = list(model.interaction.layers())
            self.cross = [
                GpuCrossLayer(*layer, self.dtype, is_first=number == 0, is_last=number == len(layers) - 1)
                for number, layer in enumerate(layers)
            ]
            self.interacted_width = model.top_widths[0]  # not padded: a multiple of the embedding dimension
        self.schema = schema
        widths = [dense_width(schema), *architecture.mlp_bot[1:]]
        self.bottom: Sequence[Layer[torch.Tensor]] = [
            GpuLayer(layer, width, self.dtype)
            for layer, width in zip(linear_layers(model.bot_l), widths, strict=False)
        ]
        *hidden, last = linear_layers(model.top_l)
        widths = [self.interacted_width, *model.top_widths[1:]]
        self.top: Sequence[Layer[torch.Tensor]] = [
            GpuLayer(layer, width, self.dtype) for layer, width in zip(hidden, widths, strict=False)
        ]
        self.last_weight, self.last_bias = last.weight.data, last.bias.data
        rows = torch.tensor([0, *architecture.rows_per_table])
        self.table_sizes = rows[1:].to(self.device, torch.int32)
        self.table_starts = rows.cumsum(0)[:-1].to(self.device, torch.int32)
        self.first_row = torch.zeros((), dtype=torch.int64, device=self.device)
        self.invalid = torch.full((), NO_POSITION, dtype=torch.int64, device=self.device)
        self.source: RowSource | None = None
        self.row_format = row_format(LOG1P, modulo_rows=False).to(self.device)
        self.transforms = dense_transforms(LOG1P, schema).to(self.device) if has_transforms else None
        self.upload = Upload(self.device)

    @property
    def ranges(self) -> Mapping[str, str]:
        """The parts of the forward pass and their methods."""
        return {"decode": "decoding of the rows", **forward_ranges(has_cross=bool(self.cross))}

    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[RawBatch]:
        """Return the undecoded batches of `epoch` from number `first` on."""
        assert hasattr(data, "raw_batches"), "the GPU engine needs a BinaryFile"
        batches: Iterator[RawBatch] = data.raw_batches(epoch, first)
        return batches

    def score(self, batch: RawBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities of a click and the labels, float32 [B] each, on the device."""
        self.note_source(batch)
        scores = self.score_rows(self.upload.copy(RawRows(batch.rows, batch.ids)))
        self.upload.done()
        return scores

    def score_rows(self, inputs: RawRows) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities and labels of `inputs`, on the device."""
        activations = self.forward(inputs)
        return self.predict(activations.top[-1]), activations.labels

    def predict(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the probabilities, float32 [B], for the inputs of the last layer [B, N]."""
        return predict(hidden=hidden, weight=self.last_weight, bias=self.last_bias, threshold=self.threshold)

    def check(self) -> None:
        """Wait for the device. RunError if a row scored so far contains an invalid label or id."""
        position = int(self.invalid)
        if position != NO_POSITION:
            assert self.source is not None
            raise invalid_row_error(self.source, *divmod(position, positions_per_row(self.schema)))

    def forward(self, inputs: RawRows) -> Activations:
        """Decode `inputs`, on the device, and run the model up to its last layer."""
        dense, labels, embedding_rows = self.decode(inputs)
        bottom = self.run_bottom(dense)
        interacted = self.look_up_and_interact(embedding_rows, bottom[-1])
        cross: list[CrossValues] = []
        if self.cross:
            interacted, cross = self.run_cross(interacted)
        return Activations(bottom, self.run_top(interacted), labels, embedding_rows, cross)

    def decode(self, inputs: RawRows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the dense features, labels and embedding rows."""
        ids = 0 if inputs.ids is None else len(inputs.ids)
        assert ids == len(inputs.rows) * sum(self.ids_per_table or ()), (
            "the batch does not have the ids of the model"
        )
        dense, labels, embedding_rows = decode(
            rows=inputs.rows,
            table_sizes=self.table_sizes,
            table_starts=self.table_starts,
            first_row=self.first_row,
            row_format=self.row_format,
            invalid=self.invalid,
            modulus=self.modulus,
            dtype=self.dtype,
            by_table=self.bags is not None,
            with_ids=inputs.ids is None,
            schema=self.schema,
            transforms=self.transforms,
        )
        if inputs.ids is not None:
            assert self.bags is not None
            embedding_rows = number_rows(ids=inputs.ids, table_starts=self.table_starts, bags=self.bags)
        return dense, labels, embedding_rows

    def run_bottom(self, dense: torch.Tensor) -> list[torch.Tensor]:
        """Return the input of the bottom MLP and the output of each layer for `dense` [B, K]."""
        return run_layers(self.bottom, dense)

    def look_up_and_interact(self, embedding_rows: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the rows `embedding_rows`, as decoded.

        With a cross network, return its input, [B, F * D].
        """
        tables = self.tables.weight
        if self.bags is not None:
            joined = pool(tables=tables, embedding_rows=embedding_rows, bags=self.bags, bottom=bottom)
            if self.cross:
                return joined
            self.pooled = PooledRows.of(joined, self.bags.tables)
            tables, embedding_rows = self.pooled.features, self.pooled.rows
        return interact(
            tables=tables,
            embedding_rows=embedding_rows,
            bottom=bottom,
            width=self.interacted_width,
            self_interaction=self.model.architecture.interaction_itself,
            allow_tf32=self.allow_tf32,
        )

    def run_cross(self, x0: torch.Tensor) -> tuple[torch.Tensor, list[CrossValues]]:
        """Return the output of the cross network for its input, and the values of each layer."""
        return run_cross_layers(self.cross, x0)

    def run_top(self, interacted: torch.Tensor) -> list[torch.Tensor]:
        """Return the interaction and the output of each layer of the top MLP but the last."""
        return run_layers(self.top, interacted)

    def note_source(self, batch: RawBatch) -> None:
        """Record where the rows of `batch` come from: their format, and where an invalid value is."""
        known, source = self.source, batch.source
        if known is None or (known.dense, known.modulo_rows) != (source.dense, source.modulo_rows):
            # This copy waits for the device, so that the next batch is not copied beside the step.
            self.row_format.copy_(row_format(source.dense, modulo_rows=source.modulo_rows))
            if self.transforms is not None:
                self.transforms.copy_(dense_transforms(source.dense, self.schema))
        self.source = source
        self.first_row.fill_(batch.first_row)
