"""Row-wise Adagrad, with one accumulator per row of a table."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mlperf.models.layers.embedding.rows import RowParameter
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.optim.adagrad import Adagrad


class RowWiseAdagrad(Adagrad):
    """Adagrad with one accumulator per row, to which the mean of the row's squared gradients is added.

    Dense parameters are updated by Adagrad.
    """

    state_per_value = 0
    state_per_row = 1

    def sums_per_row(self, parameter: RowParameter) -> int:
        """Return 1."""
        return 1

    def squares(self, gradients: torch.Tensor) -> torch.Tensor:
        """Return the means of the squares, [U, 1]."""
        return gradients.square().mean(1, keepdim=True)

    def row_state(self) -> Iterator[tuple[nn.Parameter | ShardedTable, dict[str, torch.Tensor]]]:
        """Yield the sums of each parameter [rows], by their name in existing checkpoints."""
        for parameter, kept in super().row_state():
            sums = kept["sum"]
            yield parameter, {"momentum": sums if isinstance(parameter, ShardedTable) else sums.view(-1)}
