"""Parts of an embedding table that one of several processes stores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mlperf.models.layers.embedding.interface import EmbeddingTable


@dataclass(frozen=True)
class Shard:
    """A rectangle of a table [R, D].

    values: [rows, columns], in place. first_row, first_column: position of its first value in the table.
    """

    values: torch.Tensor
    first_row: int
    first_column: int

    def take(self, rows: torch.Tensor, first: int) -> None:
        """Copy what this shard stores of `rows`, float32 [N, D], which are the table's rows from `first` on."""
        start = max(first, self.first_row)
        stop = min(first + len(rows), self.first_row + len(self.values))
        if start >= stop:
            return
        columns = slice(self.first_column, self.first_column + self.values.shape[1])
        self.values[start - self.first_row : stop - self.first_row] = rows[start - first : stop - first, columns]


class ShardedTable(EmbeddingTable):
    """One table, of which this process stores `shards`, none to all of its rows."""

    def __init__(self, rows: int, shards: Sequence[Shard]) -> None:
        super().__init__()
        self.rows = rows
        self.shards = shards

    def parts(self, ids: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Not possible: the rows are divided among the processes."""
        raise NotImplementedError

    def combine(self, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Not possible: the rows are divided among the processes."""
        raise NotImplementedError

    def initial_ranges(self) -> Iterator[tuple[torch.Tensor, float, float]]:
        """Not possible: see `initial_range`."""
        raise NotImplementedError

    @property
    def initial_range(self) -> tuple[float, float]:
        """±sqrt(1 / rows)."""
        bound = math.sqrt(1 / self.rows)
        return -bound, bound
