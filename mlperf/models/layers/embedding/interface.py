"""Interfaces of the embedding tables: `EmbeddingTable`, one table, and `EmbeddingTables`, all tables of a model.

B batch, T tables, D embedding dimension, L ids looked up, W values in a stored row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.pooling import PoolingWeights
from mlperf.models.layers.embedding.rows import Lookup, RowParameter

if TYPE_CHECKING:
    from mlperf.models.layers.embedding.shards import ShardedTable


class EmbeddingTable(nn.Module, ABC):
    """A table whose vectors are computed from rows of its parameters.

    Called like nn.EmbeddingBag with mode="sum". `forward` is the reference of the faster lookups, in operations
    that can be traced and differentiated.
    """

    @abstractmethod
    def parts(self, ids: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Return, for ids of any shape, the parameters [rows, W] to read from and the row of each id."""

    @abstractmethod
    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Return the ids' vectors [..., D] from the rows [..., W] of each of `parts`."""

    @abstractmethod
    def initial_ranges(self) -> Iterator[tuple[torch.Tensor, float, float]]:
        """Yield the weights in the order in which they are drawn, each with its range (low, high)."""

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
        vectors = self.combine([_rows_of(weight, rows) for weight, rows in self.parts(ids)])
        if per_sample_weights is not None:
            vectors = vectors * per_sample_weights.unsqueeze(-1)
        return vectors.sum(1) if offsets is None else _sum_bags(vectors, offsets)


class EmbeddingTables(nn.ModuleList, ABC):
    """T embedding tables that are looked up together; entry K is table K.

    Subclasses ModuleList so that parameters are named `emb_l.K.weight`, as in existing checkpoints, and the
    printed model is unchanged. Weights are undefined until they are initialized or loaded. Tables must stay on the
    device on which they are built, since parameters may be views of one block.
    """

    def __init__(self, tables: Iterable[nn.Module], dimension: int, device: torch.device) -> None:
        super().__init__(tables)
        self.dimension = dimension
        self.device = device

    def forward(self, batch: Batch, pooling: PoolingWeights | None = None) -> torch.Tensor:
        """Return the pooled vectors of `batch`, float32 [B, T, D]."""
        return self.look_up(batch, pooling).pooled

    @abstractmethod
    def look_up(self, batch: Batch, pooling: PoolingWeights | None) -> Lookup:
        """Gather the rows of `batch`, weighted by `pooling` if it is given, and sum them per sample."""

    @abstractmethod
    def row_parameters(self) -> Sequence[RowParameter]:
        """Return the parameters trained row by row; none once the rows are quantized."""

    def dense_parameters(self) -> Sequence[nn.Parameter]:
        """Return the parameters trained from their `.grad`, like the weights of the MLPs."""
        return ()

    def sharded_tables(self) -> Sequence[ShardedTable]:
        """Return the tables that are divided among the processes: all or none."""
        return ()

    def flush(self) -> None:
        """Write rows that were updated in a cache to the memory of the tables."""

    @abstractmethod
    def quantize(self, bits: int) -> None:
        """Convert the rows to 8 or 4 bits; afterwards only lookups without gradients work."""

    @abstractmethod
    def nbytes(self) -> int:
        """Return the memory of the tables in bytes, quantized or not."""

    def _get_name(self) -> str:
        """Return the class name in printed models."""
        return "ModuleList"


def _rows_of(weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the rows [..., W] as float32."""
    vectors = nn.functional.embedding(rows, weight)
    return vectors if vectors.dtype == torch.float32 else vectors.float()


def _sum_bags(vectors: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the sums [B, D] of `vectors` [L, D] between one of `offsets` [B] and the next."""
    # The bag of an id is the last one that starts at or before it. Empty bags at the end start at L, hence L + 1.
    starts = offsets.new_zeros(vectors.shape[0] + 1).scatter_add(0, offsets, torch.ones_like(offsets))
    bags = starts[:-1].cumsum(0) - 1
    return vectors.new_zeros(offsets.shape[0], vectors.shape[1]).index_add(0, bags, vectors)
