"""One uncompressed embedding table, printed and saved like PyTorch's own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from mlperf.models.layers.embedding.interface import EmbeddingTable


class EmbeddingBag(EmbeddingTable, nn.EmbeddingBag):
    """A table over existing memory, `weight` [rows, D]."""

    def __init__(self, weight: torch.Tensor) -> None:
        rows, dimension = weight.shape
        super().__init__(rows, dimension, mode="sum", _weight=weight)

    def parts(self, ids: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the one parameter and `ids`."""
        return [(self.get_parameter("weight"), ids)]

    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the rows: they are the vectors."""
        return vectors[0]

    def initial_ranges(self) -> Iterator[tuple[torch.Tensor, float, float]]:
        """Yield ±sqrt(1 / rows)."""
        bound = math.sqrt(1 / len(self.weight))
        yield self.weight.data, -bound, bound

    def extra_repr(self) -> str:
        """Return a fixed format: PyTorch versions differ in quoting."""
        return f"{self.num_embeddings}, {self.embedding_dim}, mode={self.mode}"
