"""The embedding tables: one flat block of rows, each table a view of it.

B batch, T tables, D embedding dimension, L ids looked up, R rows of all tables together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.bag import EmbeddingBag
from mlperf.models.layers.embedding.blocks import Block, RowGradients, Rows
from mlperf.models.layers.embedding.quantized import QuantizedRows


@dataclass
class FlatLookup:
    """What a lookup read, kept until its rows are updated.

    rows: int64 [L], rows of the flat block. bags: int64 [L], the row of `pooled.view(B * T, D)` that each id
    was added to, or None where that is its own position. pooled: float32 [B, T, D], a leaf of the autograd
    graph: after the backward pass `pooled.grad` is its gradient.
    """

    tables: EmbeddingTables
    rows: torch.Tensor
    bags: torch.Tensor | None
    pooled: torch.Tensor

    @torch.no_grad()
    def gradients(self) -> Iterator[RowGradients]:
        """Yield the gradients of the rows read and, where they are learned, of their pooling weights."""
        assert self.pooled.grad is not None
        tables = self.tables
        flat = self.pooled.grad.flatten(0, 1)  # (B * T, D)
        gradients = flat if self.bags is None else flat.index_select(0, self.bags)  # (L, D)
        if tables.pooling_weight is None:
            yield RowGradients(tables.blocks[0], self.rows, gradients)
            return
        weighted = gradients * tables.pooling_weight.index_select(0, self.rows)
        yield RowGradients(tables.blocks[0], self.rows, weighted)
        if len(tables.blocks) > 1:
            read = tables.weight.index_select(0, self.rows)
            yield RowGradients(tables.blocks[1], self.rows, (gradients * read).sum(1, keepdim=True))


class EmbeddingTables:
    """T tables of `rows_per_table` rows, float32, summed per sample.

    The lookup is one gather over the flat block `weight` [R, D] instead of one per table, and there is no
    autograd through it: the optimizer scatters the gradients of the pooled vectors itself. `modules` are
    ordinary embedding bags, their weights views of the block, so that a state_dict reads as it always did.
    With `weighted` ("fixed" or "learned"), `pooling_weight` [R, 1] scales each row where it is pooled (all 1
    at the start).
    """

    def __init__(
        self, rows_per_table: Sequence[int], dimension: int, weighted: str | None, device: torch.device
    ) -> None:
        total = sum(rows_per_table)
        self.rows_per_table = tuple(rows_per_table)
        self.dimension = dimension
        self.device = device
        self.weight = torch.empty(total, dimension, device=device)
        self.pooling_weight = torch.ones(total, 1, device=device) if weighted else None
        starts = torch.tensor([0, *rows_per_table]).cumsum(0)[:-1]
        self.first_row = starts.to(device)  # (T,)
        tables = [EmbeddingBag(view) for view in self.weight.split(self.rows_per_table)]
        self.modules = nn.ModuleList(tables)
        self.blocks: Sequence[Block] = [Block(self.weight, [table.get_parameter("weight") for table in tables])]
        self.dense: Sequence[nn.Parameter] = ()
        self.pooling: nn.ParameterList | None = None
        if self.pooling_weight is not None:
            views = self.pooling_weight.squeeze(1).split(self.rows_per_table)
            self.pooling = nn.ParameterList(nn.Parameter(view) for view in views)
            if weighted == "learned":
                self.blocks = [*self.blocks, Block(self.pooling_weight, list(self.pooling))]
        self._rows: Rows = self.weight

    @torch.no_grad()
    def look_up(self, batch: Batch) -> FlatLookup:
        """Gather and pool the rows of `batch`."""
        if batch.offsets is None:
            rows = (batch.indices + self.first_row.unsqueeze(1)).t().flatten()  # (B * T,), sample by sample
            bags = None
            pooled = self._weighted_rows(rows)
        else:
            tables, size = batch.offsets.shape
            bag_by_table = batch.bags()  # (L,), in T, B order
            rows = batch.indices + self.first_row[bag_by_table // size]
            bags = bag_by_table % size * tables + bag_by_table // size  # in B, T order
            pooled = self._pooled(rows, batch.offsets.flatten(), bag_by_table)
            pooled = pooled.view(tables, size, self.dimension).transpose(0, 1).contiguous()
        pooled = pooled.view(-1, len(self.rows_per_table), self.dimension)
        return FlatLookup(self, rows, bags, pooled.requires_grad_())

    def _weighted_rows(self, rows: torch.Tensor) -> torch.Tensor:
        gathered = self._rows.index_select(0, rows)
        if self.pooling_weight is not None:
            gathered *= self.pooling_weight.index_select(0, rows)
        return gathered

    def _pooled(self, rows: torch.Tensor, offsets: torch.Tensor, bags: torch.Tensor) -> torch.Tensor:
        """Return the sums [T * B, D] of `rows` [L] between one of `offsets` [T * B] and the next."""
        if isinstance(self._rows, torch.Tensor):
            weights = None if self.pooling_weight is None else self.pooling_weight[:, 0].index_select(0, rows)
            return nn.functional.embedding_bag(rows, self._rows, offsets, mode="sum", per_sample_weights=weights)
        empty = torch.zeros(len(offsets), self.dimension, device=self.device)
        return empty.index_add_(0, bags, self._weighted_rows(rows))

    def quantize(self, bits: int) -> None:
        """Keep the rows in 8 or 4 bits from here on and give the float32 block back."""
        self._rows = QuantizedRows(self.weight, bits)
        self.weight = self.weight.new_empty(0, self.dimension)
        self.blocks = []
        for module in self.modules:
            module.weight.data = self.weight

    def nbytes(self) -> int:
        """Return the memory of rows and pooling weights."""
        pooling = 0 if self.pooling_weight is None else self.pooling_weight.nbytes
        return self._rows.nbytes + pooling
