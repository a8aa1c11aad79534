"""One compressed embedding table; parameters are named as in existing checkpoints.

Quotient-remainder (arXiv 1909.02107): row i of a large table is computed from row i // c of one small table and
row i mod c of another. Mixed dimension (arXiv 1909.11810): tables with many rows get a smaller dimension, and a
linear map projects their rows to dimension D.

D embedding dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from mlperf.models.layers.embedding.interface import EmbeddingTable
from mlperf.models.layers.embedding.uncompressed_table import EmbeddingBag
from mlperf.settings.model import Compression, MixedDimension, QuotientRemainder


def mixed_dimensions(rows_per_table: Sequence[int], dimension: int, options: MixedDimension) -> list[int]:
    """Return the dimension of each table by the paper's power rule, for uniform popularity within a table.

    A table of n rows gets dimension * (m / n) ** temperature, where m is the smallest number of rows of a table,
    rounded to the nearest integer or power of two, at least 1.
    """
    min_rows = min(rows_per_table)
    dimensions = []
    for rows in rows_per_table:
        exact = dimension * (min_rows / rows) ** options.temperature
        rounded = max(1, round(exact))
        if options.round_dimensions:
            rounded = min(dimension, 2 ** round(math.log2(rounded)))
        dimensions.append(dimension if rows <= options.threshold else rounded)
    return dimensions


class QREmbeddingBag(EmbeddingTable):
    """A table of `rows` rows stored as quotients [ceil(rows / c), W] and remainders [c, W].

    W is half of D if they are concatenated, and D otherwise.
    """

    def __init__(self, rows: int, width: int, options: QuotientRemainder, device: torch.device) -> None:
        super().__init__()
        self.rows = rows
        self.collisions = options.collisions
        self.operation = options.operation
        quotients = math.ceil(rows / options.collisions)
        self.weight_q = nn.Parameter(torch.empty(quotients, width, device=device))
        self.weight_r = nn.Parameter(torch.empty(options.collisions, width, device=device))

    def parts(self, ids: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the quotients and the remainders with their rows."""
        quotients = torch.div(ids, self.collisions, rounding_mode="floor")
        return [(self.weight_q, quotients), (self.weight_r, ids % self.collisions)]

    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the product, the sum or the concatenation of quotients and remainders."""
        quotient, remainder = vectors
        match self.operation:
            case "mult":
                return quotient * remainder
            case "add":
                return quotient + remainder
            case "concat":
                return torch.cat((quotient, remainder), -1)
        raise ValueError(f"unknown operation {self.operation!r}")

    def initial_ranges(self) -> Iterator[tuple[torch.Tensor, float, float]]:
        """Yield ±sqrt(1 / rows); with "mult", remainders are around 1 so that products keep the scale of a row."""
        bound = math.sqrt(1 / self.rows)
        yield self.weight_q.data, -bound, bound
        yield self.weight_r.data, *((0.5, 1.5) if self.operation == "mult" else (-bound, bound))

    def extra_repr(self) -> str:
        """Return the sizes, for printed models."""
        return f"{self.rows}, {self.weight_q.shape[1]}, {self.operation}, collisions={self.collisions}"


class PrEmbeddingBag(EmbeddingTable):
    """A table of dimension `width`, `embs`, and the linear map `proj` to D, unless the two are equal."""

    def __init__(self, rows: int, width: int, dimension: int, device: torch.device) -> None:
        super().__init__()
        self.embs = EmbeddingBag(torch.empty(rows, width, device=device))
        self.proj: nn.Module = nn.Identity()
        if width < dimension:
            self.proj = nn.utils.skip_init(nn.Linear, width, dimension, bias=False, device=device)

    def parts(self, ids: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return the one parameter and `ids`."""
        return self.embs.parts(ids)

    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the rows, projected."""
        projected: torch.Tensor = self.proj(vectors[0])
        return projected

    def initial_ranges(self) -> Iterator[tuple[torch.Tensor, float, float]]:
        """Yield the ranges of the table, then that of the map (Glorot and Bengio 2010)."""
        yield from self.embs.initial_ranges()
        for weight in self.proj.parameters():
            bound = math.sqrt(6 / sum(weight.shape))
            yield weight.data, -bound, bound


def make_table(
    rows: int, dimension: int, width: int, options: Compression, device: torch.device
) -> EmbeddingTable:
    """Return one table. dimension: D. width: width of the stored rows of a mixed-dimension table."""
    if rows <= options.threshold:
        return EmbeddingBag(torch.empty(rows, dimension, device=device))
    if isinstance(options, MixedDimension):
        return PrEmbeddingBag(rows, width, dimension, device)
    return QREmbeddingBag(rows, dimension // 2 if options.operation == "concat" else dimension, options, device)
