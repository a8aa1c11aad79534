"""Uncompressed embedding tables in one flat block of rows; each table is a view of it.

B batch, T tables, D embedding dimension, L ids looked up, R rows of all tables together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.interface import EmbeddingTables
from mlperf.models.layers.embedding.pooling import PoolingWeights
from mlperf.models.layers.embedding.quantized import QuantizedRows
from mlperf.models.layers.embedding.rows import RowGradients, RowParameter
from mlperf.models.layers.embedding.uncompressed_table import EmbeddingBag


@dataclass
class FlatLookup:
    """Result of a lookup, kept until its rows are updated.

    rows: int64 [L], rows of the flat block.
    bags: int64 [L], row of `pooled.view(B * T, D)` to which each id was added; None for one id per bag.
    pooled: float32 [B, T, D], a leaf of the autograd graph.
    """

    tables: FlatTables
    pooling: PoolingWeights | None
    rows: torch.Tensor
    bags: torch.Tensor | None
    pooled: torch.Tensor

    @torch.no_grad()
    def gradients(self) -> Iterator[RowGradients]:
        """Yield the gradients of the rows read and, if they are learned, of their pooling weights."""
        assert self.pooled.grad is not None
        flat = self.pooled.grad.flatten(0, 1)  # (B * T, D)
        gradients = flat if self.bags is None else flat.index_select(0, self.bags)  # (L, D)
        if self.pooling is None:
            yield RowGradients(self.tables.row_parameter, self.rows, gradients)
            return
        weighted = gradients * self.pooling.weight.index_select(0, self.rows)
        yield RowGradients(self.tables.row_parameter, self.rows, weighted)
        if self.pooling.learned:
            read = self.tables.weight.index_select(0, self.rows)  # widened to float32 by the product
            of_weights = (gradients * read).sum(1, keepdim=True)
            yield RowGradients(self.pooling.row_parameter, self.rows, of_weights)


class FlatTables(EmbeddingTables):
    """T tables of `rows_per_table` rows, summed per sample.

    dtype: of the stored rows, float32, bfloat16 or float16. Looked up, they are float32.

    The lookup is one gather from the flat block `weight` [R, D] instead of one per table. It is not part of the
    autograd graph: the optimizer scatters the gradients of the pooled vectors itself. The tables are ordinary
    embedding bags whose weights are views of the block; table K begins at row `first_row[K]`.
    """

    def __init__(
        self,
        rows_per_table: Sequence[int],
        dimension: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        weight = torch.empty(sum(rows_per_table), dimension, device=device, dtype=dtype)
        tables = [EmbeddingBag(view) for view in weight.split(tuple(rows_per_table))]
        super().__init__(tables, dimension, device)
        self.rows_per_table = tuple(rows_per_table)
        self.weight = weight
        self.first_row = torch.tensor([0, *rows_per_table]).cumsum(0)[:-1].to(device)  # (T,)
        self.row_parameter = RowParameter(weight, [table.get_parameter("weight") for table in tables])
        self._rows: torch.Tensor | QuantizedRows = weight

    @property
    def stored(self) -> torch.Tensor | QuantizedRows:
        """The rows as they are stored: `weight`, or the quantized rows in its place."""
        return self._rows

    @torch.no_grad()
    def look_up(self, batch: Batch, pooling: PoolingWeights | None) -> FlatLookup:
        """Gather and pool the rows of `batch`."""
        if batch.offsets is None:
            rows = (batch.indices + self.first_row.unsqueeze(1)).t().flatten()  # (B * T,), sample by sample
            bags = None
            pooled = self._weighted_rows(rows, pooling)
        else:
            tables, size = batch.offsets.shape
            bag_by_table = batch.bags()  # (L,), in T, B order
            rows = batch.indices + self.first_row[bag_by_table // size]
            bags = bag_by_table % size * tables + bag_by_table // size  # in B, T order
            pooled = self._pooled(rows, batch.offsets.flatten(), bag_by_table, pooling)
            pooled = pooled.view(tables, size, self.dimension).transpose(0, 1).contiguous()
        pooled = pooled.view(-1, len(self.rows_per_table), self.dimension)
        return FlatLookup(self, pooling, rows, bags, pooled.requires_grad_())

    def _weighted_rows(self, rows: torch.Tensor, pooling: PoolingWeights | None) -> torch.Tensor:
        gathered = self._rows.index_select(0, rows).float()
        if pooling is not None:
            gathered *= pooling.weight.index_select(0, rows)
        return gathered

    def _pooled(
        self, rows: torch.Tensor, offsets: torch.Tensor, bags: torch.Tensor, pooling: PoolingWeights | None
    ) -> torch.Tensor:
        """Return the sums [T * B, D] of `rows` [L] between one of `offsets` [T * B] and the next."""
        if isinstance(self._rows, torch.Tensor) and self._rows.dtype == torch.float32:
            weights = None if pooling is None else pooling.weight[:, 0].index_select(0, rows)
            return nn.functional.embedding_bag(rows, self._rows, offsets, mode="sum", per_sample_weights=weights)
        empty = torch.zeros(len(offsets), self.dimension, device=self.device)
        return empty.index_add_(0, bags, self._weighted_rows(rows, pooling))

    def row_parameters(self) -> Sequence[RowParameter]:
        """Return the flat block; none once it is quantized."""
        return [self.row_parameter] if isinstance(self._rows, torch.Tensor) else []

    def quantize(self, bits: int) -> None:
        """Convert the rows to 8 or 4 bits and free the float32 block."""
        self._rows = QuantizedRows(self.weight, bits)
        self.weight = self.row_parameter.values = self.weight.new_empty(0, self.dimension)
        for table in self:
            table.get_parameter("weight").data = self.weight

    def nbytes(self) -> int:
        """Return the memory of the rows in bytes."""
        return self._rows.nbytes
