"""Adagrad (Duchi et al. 2011)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from mlperf.models.layers.embedding.rows import RowParameter
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.optim.optimizer import Optimizer, Trainable, sum_rows
from mlperf.settings.training import EPSILON


class Adagrad(Optimizer):
    """w -= rate * gradient / (sqrt(sum of squared gradients) + epsilon), as torch.optim.Adagrad.

    Gradients of a row that a step reads more than once are summed before they are squared. The sums are float32,
    also for tables in 16 bits.

    dense_sums: those of the dense parameters, in their order and shapes.
    row_sums: those of each parameter trained row by row, [R, sums per row].
    """

    state_per_weight = 1
    state_per_value = 1

    def __init__(self, model: Trainable, seed: int = 0, epsilon: float = EPSILON) -> None:
        super().__init__(model, seed, epsilon)
        self.dense_sums = [torch.zeros_like(values) for values in self.dense_values]
        self.row_sums = {
            parameter: parameter.values.new_zeros(
                len(parameter.values), self.sums_per_row(parameter), dtype=torch.float32
            )
            for parameter in self.row_parameters
        }

    def sums_of(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the sums of a dense parameter, float32, in its shape."""
        return next(
            sums for own, sums in zip(self.dense_parameters, self.dense_sums, strict=True) if own is parameter
        )

    def sums_per_row(self, parameter: RowParameter) -> int:
        """Return the number of accumulators per row: one for each value."""
        return parameter.values.shape[1]

    def squares(self, gradients: torch.Tensor) -> torch.Tensor:
        """Return the increments [U, sums per row] of the accumulators for row gradients [U, W]."""
        return gradients.square()

    def update_rows(
        self, parameter: RowParameter, rows: torch.Tensor, gradients: torch.Tensor, rate: float
    ) -> None:
        """Update the rows and their sums."""
        distinct, summed = sum_rows(rows, gradients)
        sums = self.row_sums[parameter]
        squares = self.squares(summed)
        squares += sums[distinct]
        sums[distinct] = squares
        self.subtract(parameter, distinct, summed / (squares.sqrt() + self.epsilon), rate)

    def update_dense(self, gradients: list[torch.Tensor], rate: float) -> None:
        """Update the weights and their sums."""
        torch._foreach_addcmul_(self.dense_sums, gradients, gradients, 1.0)
        roots = torch._foreach_sqrt(self.dense_sums)
        torch._foreach_add_(roots, self.epsilon)
        torch._foreach_addcdiv_(self.dense_values, gradients, roots, -rate)

    def group(self) -> dict[str, Any]:
        """Return the settings of torch.optim.Adagrad."""
        return {
            "lr": self.rate,
            "lr_decay": 0,
            "eps": self.epsilon,
            "weight_decay": 0,
            "initial_accumulator_value": 0,
        }

    def row_tensors(self) -> Iterable[torch.Tensor]:
        """Return the sums of the rows, [R, sums per row] for each parameter trained row by row."""
        return self.row_sums.values()

    def dense_state(self) -> Iterator[tuple[nn.Parameter, dict[str, torch.Tensor]]]:
        """Yield the sums of each dense parameter."""
        for parameter, sums in zip(self.dense_parameters, self.dense_sums, strict=True):
            yield parameter, {"sum": sums}

    def row_state(self) -> Iterator[tuple[nn.Parameter | ShardedTable, dict[str, torch.Tensor]]]:
        """Yield the sums of each parameter, in its shape."""
        for table in self.sharded_tables:
            assert table.sums is not None
            yield table, {"sum": table.sums}
        for rows, sums in self.row_sums.items():
            sizes = [len(parameter) for parameter in rows.parameters]
            for parameter, own in zip(rows.parameters, sums.split(sizes), strict=True):
                yield parameter, {"sum": own if parameter.dim() > 1 else own.squeeze(1)}
