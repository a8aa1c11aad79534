"""Dot products between the features (arXiv 1906.00091)."""

from __future__ import annotations

from typing import Any

import torch

from mlperf.models.layers.interaction import Interaction
from mlperf.models.layers.pairs import pair_count, pair_indices, pair_positions


class DotInteraction(Interaction):
    """f0, then the dot products of pairs of features in the order of `mlperf.models.layers.pairs`.

    f0 is the bottom MLP's output. self_interaction: also the product of each feature with itself.
    """

    positions: torch.Tensor
    pair_of: torch.Tensor

    def __init__(
        self, features: int, dimension: int, *, self_interaction: bool = False, device: torch.device | None = None
    ) -> None:
        super().__init__(features, dimension, self_interaction=self_interaction, device=device)
        i, j = pair_indices(features, self_interaction=self_interaction)
        pair_of = torch.full((features, features), len(i))  # index P marks unused products
        pair_of[i, j] = torch.arange(len(i))
        pair_of[j, i] = torch.arange(len(i))
        # Not persistent: they follow from the sizes, and existing checkpoints do not contain them.
        self.register_buffer(
            "positions", pair_positions(features, self_interaction=self_interaction).to(device), persistent=False
        )
        self.register_buffer("pair_of", pair_of.flatten().to(device), persistent=False)

    @staticmethod
    def width(features: int, dimension: int, *, self_interaction: bool) -> int:
        """Return D + P."""
        return dimension + pair_count(features, self_interaction=self_interaction)

    def forward(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Return f0 and the products, [B, D + P]."""
        features = torch.cat((bottom.unsqueeze(1), pooled), 1)  # (B, F, D)
        products = _PairProducts.apply(features, self.positions, self.pair_of, self.self_interaction)
        return torch.cat((bottom, products), 1)

    def reference(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Same as `forward`, with the gradient left to autograd."""
        features = torch.cat((bottom.unsqueeze(1), pooled.to(bottom.dtype)), 1)
        products = torch.bmm(features, features.transpose(1, 2)).flatten(1)
        return torch.cat((bottom, products.index_select(1, self.positions)), 1)


class _PairProducts(torch.autograd.Function):
    """The products of chosen pairs of features: [B, F, D] -> [B, P].

    The custom gradient is a single matrix product with a symmetric matrix; autograd would compute two products and
    an atomic scatter.
    """

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, positions: torch.Tensor, pair_of: torch.Tensor, self_interaction: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(features, pair_of)
        ctx.self_interaction = self_interaction
        products = torch.bmm(features, features.transpose(1, 2))  # (B, F, F)
        return products.flatten(1).index_select(1, positions)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        features, pair_of = ctx.saved_tensors
        batch, count, _ = features.shape
        padded = torch.nn.functional.pad(grads[0], (0, 1))  # column P is zero, for unused products
        symmetric = padded.index_select(1, pair_of).view(batch, count, count)
        if ctx.self_interaction:
            symmetric.diagonal(dim1=1, dim2=2).mul_(2)  # d(f·f)/df = 2f
        # Under autocast the products are in bfloat16 and the features may not be.
        gradient = torch.bmm(symmetric, features.to(symmetric.dtype))
        return gradient.to(features.dtype), None, None, None
