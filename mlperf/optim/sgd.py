"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import torch

from mlperf.models.layers.embedding.rows import RowParameter
from mlperf.optim.optimizer import Optimizer


class SGD(Optimizer):
    """w -= rate * gradient, as torch.optim.SGD without momentum. It keeps no state."""

    def update_rows(
        self, parameter: RowParameter, rows: torch.Tensor, gradients: torch.Tensor, rate: float
    ) -> None:
        """Subtract the gradients from the rows."""
        parameter.values.index_add_(0, rows, gradients, alpha=-rate)

    def update_dense(self, gradients: list[torch.Tensor], rate: float) -> None:
        """Subtract the gradients from the weights."""
        torch._foreach_add_(self.dense_values, gradients, alpha=-rate)

    def group(self) -> dict[str, Any]:
        """Return the settings of torch.optim.SGD."""
        return {"lr": self.rate, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}
