"""Two ways to compress embedding tables, as modules named as in existing checkpoints.

Quotient-remainder (arXiv 1909.02107): row i of a large table is made of row i // c of one small table and row
i mod c of another. Mixed dimension (arXiv 1909.11810): a table of popular ids keeps its dimension, others get
less, brought to the common one by a linear map.

L ids looked up, D embedding dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from mlperf.models.layers.embedding.bag import EmbeddingBag
from mlperf.settings.model import Compression, MixedDimension, QuotientRemainder


def mixed_dimensions(rows_per_table: Sequence[int], dimension: int, how: MixedDimension) -> list[int]:
    """Return the dimension of each table by the power rule, uniform popularity within a table.

    The table with the fewest rows has all of `dimension`, one of n rows that times (fewest / n) to the power
    of the temperature, at least 1; rounded to the nearest whole number, or power of two.
    """
    fewest = min(rows_per_table)
    dimensions = []
    for rows in rows_per_table:
        exact = dimension * (fewest / rows) ** how.temperature
        rounded = max(1, round(exact))
        if how.round_dimensions:
            rounded = min(dimension, 2 ** round(math.log2(rounded)))
        dimensions.append(dimension if rows <= how.threshold else rounded)
    return dimensions


class QREmbeddingBag(nn.Module):
    """A table of `rows` rows kept as quotients [ceil(rows / c), d] and remainders [c, d]."""

    def __init__(self, rows: int, dimension: int, how: QuotientRemainder, device: torch.device) -> None:
        super().__init__()
        self.rows = rows
        self.collisions = how.collisions
        self.operation = how.operation
        quotients = math.ceil(rows / how.collisions)
        self.weight_q = nn.Parameter(torch.empty(quotients, dimension, device=device))
        self.weight_r = nn.Parameter(torch.empty(how.collisions, dimension, device=device))

    def parts(self, ids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return, for ids [L], which rows of which parameters they are made of."""
        quotients = torch.div(ids, self.collisions, rounding_mode="floor")
        return [(self.weight_q, quotients), (self.weight_r, ids % self.collisions)]

    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the ids' vectors [L, D] from their rows [L, d] of `parts`; D is 2d for concat, d otherwise."""
        quotient, remainder = vectors
        match self.operation:
            case "mult":
                return quotient * remainder
            case "add":
                return quotient + remainder
            case "concat":
                return torch.cat((quotient, remainder), 1)
        raise ValueError(f"unknown operation {self.operation!r}")

    def extra_repr(self) -> str:
        """Return what the printed model shows of the table."""
        return f"{self.rows}, {self.weight_q.shape[1]}, {self.operation}, collisions={self.collisions}"


class PrEmbeddingBag(nn.Module):
    """A table of fewer dimensions `embs` and, unless it has all of them, its map `proj` to D dimensions."""

    def __init__(self, rows: int, narrow: int, dimension: int, device: torch.device) -> None:
        super().__init__()
        self.embs = EmbeddingBag(torch.empty(rows, narrow, device=device))
        self.proj: nn.Module = nn.Identity()
        if narrow < dimension:
            self.proj = nn.utils.skip_init(nn.Linear, narrow, dimension, bias=False, device=device)

    def parts(self, ids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return which rows of which parameters ids [L] are made of."""
        return [(self.embs.weight, ids)]

    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the ids' vectors [L, D]."""
        mapped: torch.Tensor = self.proj(vectors[0])
        return mapped


CompressedTable = QREmbeddingBag | PrEmbeddingBag | EmbeddingBag


def make_table(rows: int, dimension: int, narrow: int, how: Compression, device: torch.device) -> CompressedTable:
    """Return one table. dimension: D. narrow: the dimension that a mixed-dimension table keeps."""
    if rows <= how.threshold:
        return EmbeddingBag(torch.empty(rows, dimension, device=device))
    if isinstance(how, MixedDimension):
        return PrEmbeddingBag(rows, narrow, dimension, device)
    return QREmbeddingBag(rows, dimension // 2 if how.operation == "concat" else dimension, how, device)
