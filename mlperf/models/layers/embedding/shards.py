"""Parts of an embedding table that one of several processes stores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlperf.models.layers.embedding.interface import EmbeddingTable
from mlperf.util.divided_tensor import DividedTensor, Part


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
    """One table, of which this process stores `shards`, none to all of its rows.

    weight: the table, [R, D], as a divided tensor; the state_dict has it like the weight of a table that is whole.
    sums: what the optimizer keeps for it: [R, D] for Adagrad, [R] for row-wise Adagrad, None for SGD.
    """

    def __init__(self, rows: int, shards: Sequence[Shard], dimension: int, sums: DividedTensor | None) -> None:
        super().__init__()
        self.rows = rows
        self.shards = shards
        parts = [Part(shard.values, (shard.first_row, shard.first_column)) for shard in shards]
        self.weight = DividedTensor((rows, dimension), torch.float32, parts)
        self.sums = sums

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight

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
