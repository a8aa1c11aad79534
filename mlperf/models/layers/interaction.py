"""Feature interaction: how the bottom MLP's output and the pooled embeddings meet (arXiv 1906.00091).

B batch, T tables, D embedding dimension, F = T + 1 features, P pairs of features.
"""

from __future__ import annotations

from typing import Any

import torch


def interaction_width(op: str, tables: int, dimension: int, itself: bool) -> int:
    """Return the number of values `interact` makes of a sample: the first width of the top MLP."""
    features = tables + 1
    match op:
        case "dot":
            return dimension + (features * (features + 1) if itself else features * (features - 1)) // 2
        case "cat":
            return features * dimension
        case "sum":
            return dimension
    raise ValueError(f"unknown interaction {op!r}")


class FeatureInteraction(torch.nn.Module):
    """dot, cat or sum of the features, as NUMERICS defines them, with the order of pairs existing models use."""

    pairs: torch.Tensor
    pair_of: torch.Tensor

    def __init__(self, op: str, tables: int, itself: bool, device: torch.device) -> None:
        super().__init__()
        self.op = op
        features = tables + 1
        left, right = torch.tril_indices(features, features, 0 if itself else -1)  # (P,) each, row by row
        pairs = left * features + right
        pair_of = torch.full((features, features), len(pairs))  # P stands for "no such product"
        pair_of[left, right] = torch.arange(len(pairs))
        pair_of[right, left] = torch.arange(len(pairs))
        self.itself = itself
        self.pairs = pairs.to(device)
        self.pair_of = pair_of.flatten().to(device)

    def forward(self, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Combine `bottom` [B, D] and `pooled` [B, T, D] into [B, interaction_width]."""
        if self.op == "sum":
            return bottom + pooled.sum(1)
        features = torch.cat((bottom.unsqueeze(1), pooled), 1)  # (B, F, D)
        if self.op == "cat":
            return features.flatten(1)
        return torch.cat((bottom, _PairProducts.apply(features, self.pairs, self.pair_of, self.itself)), 1)


class _PairProducts(torch.autograd.Function):
    """The products of chosen pairs of features: [B, F, D] -> [B, P].

    Written out because its gradient is one matrix product with a symmetric matrix, where autograd would make
    two products and an atomic scatter of the general case.
    """

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, pairs: torch.Tensor, pair_of: torch.Tensor, itself: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(features, pair_of)
        ctx.itself = itself
        products = torch.bmm(features, features.transpose(1, 2))  # (B, F, F)
        return products.flatten(1).index_select(1, pairs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        features, pair_of = ctx.saved_tensors
        batch, count, _ = features.shape
        padded = torch.nn.functional.pad(grads[0], (0, 1))  # column P is the 0 of products not taken
        symmetric = padded.index_select(1, pair_of).view(batch, count, count)
        if ctx.itself:
            symmetric.diagonal(dim1=1, dim2=2).mul_(2)  # d(f·f)/df = 2f
        gradient = torch.bmm(symmetric, features.to(symmetric.dtype))  # of autocast's type, as the products were
        return gradient.to(features.dtype), None, None, None
