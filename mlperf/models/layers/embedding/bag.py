"""One uncompressed embedding table, printed and saved as PyTorch's own."""

from __future__ import annotations

import torch
from torch import nn


class EmbeddingBag(nn.EmbeddingBag):
    """A table over memory that is given, `weight` [rows, D]; sums the rows of a sample."""

    def __init__(self, weight: torch.Tensor) -> None:
        rows, dimension = weight.shape
        super().__init__(rows, dimension, mode="sum", _weight=weight)

    def parts(self, ids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return which rows of which parameters ids [L] are made of."""
        return [(self.weight, ids)]

    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the ids' vectors [L, D] from their rows of `parts`."""
        return vectors[0]

    def extra_repr(self) -> str:
        """Return what existing comparisons expect, whatever PyTorch's version puts in quotes."""
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode}"
