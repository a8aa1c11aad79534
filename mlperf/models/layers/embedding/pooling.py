"""Weighted pooling: one weight per row of every table (--weighted-pooling)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mlperf.models.layers.embedding.rows import RowParameter


class PoolingWeights(nn.ParameterList):
    """The weight by which each row is multiplied when it is pooled, initially 1.

    Parameter K [rows of table K] is a view of the flat block `weight` [R, 1], whose rows are numbered over all
    tables. learned: whether the weights are trained like the rows.
    """

    def __init__(self, rows_per_table: Sequence[int], *, learned: bool, device: torch.device) -> None:
        weight = torch.ones(sum(rows_per_table), 1, device=device)
        views = weight.squeeze(1).split(tuple(rows_per_table))
        super().__init__(nn.Parameter(view, requires_grad=learned) for view in views)
        self.weight = weight
        self.learned = learned
        self.row_parameter = RowParameter(weight, list(self))

    def row_parameters(self) -> Sequence[RowParameter]:
        """Return the block if it is trained."""
        return [self.row_parameter] if self.learned else []

    def nbytes(self) -> int:
        """Return the memory in bytes."""
        return self.weight.nbytes

    def _get_name(self) -> str:
        """Return the class name in printed models."""
        return "ParameterList"
