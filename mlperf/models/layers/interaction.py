"""Interface of a feature interaction, which combines the bottom MLP's output and the pooled embeddings.

The paper is arXiv 1906.00091. B batch, T tables, D embedding dimension, F = T + 1 features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import nn

from mlperf.settings.model import Architecture


class Interaction(nn.Module, ABC):
    """Combines F features of dimension D.

    A subclass defines `width` and `forward`, and is registered in mlperf.registry.INTERACTIONS under the name used
    by --arch-interaction-op.

    self_interaction: whether features interact with themselves; used by the dot interaction only.
    """

    def __init__(
        self, features: int, dimension: int, *, self_interaction: bool = False, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.features = features
        self.self_interaction = self_interaction
        self.device = device
        self.out_features = self.width(features, dimension, self_interaction=self_interaction)

    @classmethod
    def of(cls, architecture: Architecture, device: torch.device | None = None) -> Self:
        """Return the interaction of a model. A subclass with sizes of its own overrides this."""
        return cls(
            len(architecture.rows_per_table) + 1,
            architecture.feature_size,
            self_interaction=architecture.interaction_itself,
            device=device,
        )

    @staticmethod
    @abstractmethod
    def width(features: int, dimension: int, *, self_interaction: bool) -> int:
        """Return the number of output values per sample: the first width of the top MLP."""

    @abstractmethod
    def forward(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return `bottom` [B, D] and `pooled` [B, T, D] combined, [B, out_features]."""

    def reference(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Same as `forward`, in operations that can be traced, exported and differentiated.

        Override only if `forward` uses a custom autograd function.
        """
        return self.forward(bottom, pooled)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"features={self.features}, out_features={self.out_features}"
