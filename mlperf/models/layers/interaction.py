"""The interface of a feature interaction: how the bottom MLP's output and the pooled embeddings are combined.

The paper is arXiv 1906.00091. B batch, T tables, D embedding dimension, F = T + 1 features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class Interaction(nn.Module, ABC):
    """Combines F features of dimension D.

    A subclass defines `width` and `forward`, and is registered in mlperf.registry.INTERACTIONS under the name that
    --arch-interaction-op offers. itself: whether features interact with themselves, where that makes a difference.
    """

    def __init__(
        self, features: int, dimension: int, *, itself: bool = False, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.features = features
        self.itself = itself
        self.device = device
        self.out_features = self.width(features, dimension, itself=itself)

    @staticmethod
    @abstractmethod
    def width(features: int, dimension: int, *, itself: bool) -> int:
        """Return the number of values per sample that come out: the first width of the top MLP."""

    @abstractmethod
    def forward(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return `bottom` [B, D] and `pooled` [B, T, D] combined, [B, out_features]."""

    def reference(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return what `forward` does, in operations that every tool can trace and differentiate.

        Only an interaction that writes out its own gradient has to override this.
        """
        return self.forward(bottom, pooled)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"features={self.features}, out_features={self.out_features}"
