"""Concatenation of the features."""

from __future__ import annotations

import torch

from mlperf.models.layers.interaction import Interaction


class CatInteraction(Interaction):
    """f0, f1, ..., fT one after the other; f0 is the bottom MLP's output."""

    @staticmethod
    def width(features: int, dimension: int, *, self_interaction: bool) -> int:
        """Return F * D."""
        return features * dimension

    def forward(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the features [B, F * D]."""
        return torch.cat((bottom.unsqueeze(1), pooled), 1).flatten(1)
