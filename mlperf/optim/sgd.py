"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import torch

from mlperf.models.layers.embedding.rows import RowParameter
from mlperf.optim.optimizer import Optimizer, sum_rows


class SGD(Optimizer):
    """w -= rate * gradient, as torch.optim.SGD without momentum. It keeps no state."""

    def update_rows(
        self, parameter: RowParameter, rows: torch.Tensor, gradients: torch.Tensor, rate: float
    ) -> None:
        """Subtract the gradients from the rows."""
        if parameter.values.dtype != torch.float32:  # a row is rounded once, after all of its gradients
            rows, gradients = sum_rows(rows, gradients)
        self.subtract(parameter, rows, gradients, rate)

    def update_dense(self, gradients: list[torch.Tensor], rate: float) -> None:
        """Subtract the gradients from the weights."""
        torch._foreach_add_(self.dense_values, gradients, alpha=-rate)

    def group(self) -> dict[str, Any]:
        """Return the settings of torch.optim.SGD."""
        return {"lr": self.rate, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}
