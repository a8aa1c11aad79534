"""Low-rank cross network (DCN v2, arXiv 2008.13535), as TorchRec's LowRankCrossNet.

B batch, T tables, D embedding dimension, N = (T + 1) * D values, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mlperf.models.layers.interaction import Interaction
from mlperf.settings.model import Architecture


class CrossInteraction(Interaction):
    """x[l + 1] = x[0] * (W[l] (V[l] x[l]) + b[l]) + x[l]; x[0] is f0, f1, ..., fT one after the other.

    f0 is the bottom MLP's output. V, W: the linear layers [N] -> [r], without bias, and [r] -> [N].
    """

    def __init__(
        self, features: int, dimension: int, *, layers: int, rank: int, device: torch.device | None = None
    ) -> None:
        super().__init__(features, dimension, device=device)
        width = self.out_features
        self.V = nn.ModuleList(nn.Linear(width, rank, bias=False, device=device) for _ in range(layers))
        self.W = nn.ModuleList(nn.Linear(rank, width, device=device) for _ in range(layers))

    @classmethod
    def of(cls, architecture: Architecture, device: torch.device | None = None) -> CrossInteraction:
        """Return the cross network of a model."""
        return cls(
            len(architecture.rows_per_table) + 1,
            architecture.feature_size,
            layers=architecture.cross_layers,
            rank=architecture.cross_rank,
            device=device,
        )

    @staticmethod
    def width(features: int, dimension: int, *, self_interaction: bool) -> int:
        """Return N = F * D."""
        return features * dimension

    def layers(self) -> Iterator[tuple[nn.Linear, nn.Linear]]:
        """Yield V and W of each layer, the first layer first."""
        for down, up in zip(self.V, self.W, strict=True):
            assert isinstance(down, nn.Linear)
            assert isinstance(up, nn.Linear)
            yield down, up

    def forward(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return the output of the last layer, [B, N]."""
        first = torch.cat((bottom, pooled.flatten(1).to(bottom.dtype)), 1)
        crossed = first
        for down, up in zip(self.V, self.W, strict=True):
            crossed = first * up(down(crossed)) + crossed
        return crossed

    def extra_repr(self) -> str:
        """Return nothing: the printed layers show the sizes."""
        return ""
