"""The embedding tables: one flat block of rows, each table a view of it.

B batch, T tables, D embedding dimension, L ids looked up, R rows of all tables together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mlperf.data.batch import Batch


@dataclass
class Lookup:
    """What a lookup read, kept until its rows are updated.

    rows: int64 [L], rows of the flat block. bags: int64 [L], the row of `pooled.view(B * T, D)` that each id
    was added to, or None where that is its own position. pooled: float32 [B, T, D], a leaf of the autograd
    graph: after the backward pass `pooled.grad` is its gradient.
    """

    rows: torch.Tensor
    bags: torch.Tensor | None
    pooled: torch.Tensor

    def row_gradients(self) -> torch.Tensor:
        """Return the gradient of each looked-up row with regard to the loss, float32 [L, D], weights apart."""
        assert self.pooled.grad is not None
        flat = self.pooled.grad.flatten(0, 1)  # (B * T, D)
        return flat if self.bags is None else flat.index_select(0, self.bags)


class EmbeddingTables:
    """T tables of `rows_per_table` rows, float32, summed per sample.

    The lookup is one gather over the flat block `weight` [R, D] instead of one per table, and there is no
    autograd through it: the optimizer scatters the gradients of the pooled vectors itself. `modules` are
    ordinary `nn.EmbeddingBag`, their weights views of the block, so that a state_dict reads as it always did.
    With `weighted`, `pooling_weight` [R, 1] scales each row where it is pooled (all 1 at the start).
    """

    def __init__(
        self, rows_per_table: Sequence[int], dimension: int, weighted: bool, device: torch.device
    ) -> None:
        total = sum(rows_per_table)
        self.rows_per_table = tuple(rows_per_table)
        self.dimension = dimension
        self.weight = torch.empty(total, dimension, device=device)
        self.pooling_weight = torch.ones(total, 1, device=device) if weighted else None
        starts = torch.tensor([0, *rows_per_table]).cumsum(0)[:-1]
        self.first_row = starts.to(device)  # (T,)
        self.modules = nn.ModuleList(
            nn.EmbeddingBag(len(view), dimension, mode="sum", _weight=view)
            for view in self.weight.split(self.rows_per_table)
        )
        self.pooling_parameters = (
            nn.ParameterList(
                nn.Parameter(view) for view in self.pooling_weight.squeeze(1).split(self.rows_per_table)
            )
            if self.pooling_weight is not None
            else None
        )

    @torch.no_grad()
    def look_up(self, batch: Batch) -> Lookup:
        """Gather and pool the rows of `batch`."""
        if batch.offsets is None:
            rows = (batch.indices + self.first_row.unsqueeze(1)).t().flatten()  # (B * T,), sample by sample
            bags = None
            pooled = self._weighted_rows(rows)
        else:
            tables, size = batch.offsets.shape
            starts = batch.offsets.flatten()
            stops = torch.cat((starts[1:], starts.new_tensor([len(batch.indices)])))
            order = torch.arange(tables * size, device=starts.device)
            bag_by_table = torch.repeat_interleave(order, stops - starts)  # (L,), in T, B order
            rows = batch.indices + self.first_row[bag_by_table // size]
            bags = bag_by_table % size * tables + bag_by_table // size  # in B, T order
            pooled = self.weight.new_zeros(size * tables, self.dimension)
            pooled.index_add_(0, bags, self._weighted_rows(rows))
        return Lookup(rows, bags, pooled.view(-1, len(self.rows_per_table), self.dimension))

    def _weighted_rows(self, rows: torch.Tensor) -> torch.Tensor:
        gathered = self.weight.index_select(0, rows)
        if self.pooling_weight is not None:
            gathered *= self.pooling_weight.index_select(0, rows)
        return gathered
