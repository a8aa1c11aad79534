"""Sum of the features."""

from __future__ import annotations

import torch

from mlperf.models.layers.interaction import Interaction


class SumInteraction(Interaction):
    """f0 + f1 + ... + fT; f0 is the bottom MLP's output."""

    @staticmethod
    def width(features: int, dimension: int, *, self_interaction: bool) -> int:
        """Return D."""
        return dimension

    def forward(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the sum [B, D]."""
        return bottom + pooled.sum(1)
