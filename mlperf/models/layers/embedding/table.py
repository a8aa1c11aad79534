"""The interface of one embedding table, compressed or not.

B batch, L ids looked up, D embedding dimension, W values in a stored row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import nn


class EmbeddingTable(nn.Module, ABC):
    """A table whose vectors are made of rows of its parameters.

    Called like nn.EmbeddingBag with mode="sum": the reference of the faster lookups, in operations that autograd
    and exporters know.
    """

    @abstractmethod
    def parts(self, ids: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return, for ids of any shape, the parameters [rows, W] they are read from and the row of each id."""

    @abstractmethod
    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the ids' vectors [..., D] from the rows [..., W] of each of `parts`."""

    @abstractmethod
    def initial_ranges(self) -> Iterator[tuple[torch.Tensor, float, float]]:
        """Yield the weights in the order of the draws, each with the range of its uniform distribution."""

    def forward(
        self,
        ids: torch.Tensor,
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the sum [B, D] of the vectors of each sample.

        ids: int64 [B, n], n ids per sample; or [L] with `offsets` [B], where in `ids` each sample begins.
        per_sample_weights: float32, one for each id.
        """
        vectors = self.combine([nn.functional.embedding(rows, weight) for weight, rows in self.parts(ids)])
        if per_sample_weights is not None:
            vectors = vectors * per_sample_weights.unsqueeze(-1)
        return vectors.sum(1) if offsets is None else _sum_bags(vectors, offsets)


def _sum_bags(vectors: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the sums [B, D] of `vectors` [L, D] between one of `offsets` [B] and the next."""
    # The bag of an id is the last one that starts at or before it. Empty bags at the end start at L, hence L + 1.
    starts = offsets.new_zeros(vectors.shape[0] + 1).scatter_add(0, offsets, torch.ones_like(offsets))
    bags = starts[:-1].cumsum(0) - 1
    return vectors.new_zeros(offsets.shape[0], vectors.shape[1]).index_add(0, bags, vectors)
