"""The order of the ids of a batch with a fixed number of ids per table, and limits of their positions.

B samples, T tables, h ids of a table and sample, L = B * sum(h) ids of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Bags:
    """Ids are ordered table by table, those of a table as [B, h]. A bag has the h ids of a sample and a table.

    sizes: int32 [T] on the device, h of each table.
    before: int32 [T] on the device, number of ids of a sample in the tables before each one.
    ids_per_sample, most_ids: sum and maximum of `sizes`.
    """

    sizes: torch.Tensor
    before: torch.Tensor
    ids_per_sample: int
    most_ids: int

    @classmethod
    def of(cls, ids_per_table: Sequence[int], device: torch.device) -> Bags:
        """Return the bags of tables with these numbers of ids."""
        sizes = torch.tensor(ids_per_table, dtype=torch.int32)
        before = sizes.cumsum(0, dtype=torch.int32) - sizes
        return cls(sizes.to(device), before.to(device), int(sizes.sum()), int(sizes.max()))

    @property
    def tables(self) -> int:
        """T."""
        return len(self.sizes)


@dataclass(frozen=True, eq=False)
class PooledRows:
    """The pooled features of a batch as rows of a table, of which dot products are computed.

    features: [B * (T + 1), D]. rows: int32 [B, T], the pooled rows of each sample; before them is the bottom MLP's
    output.
    """

    features: torch.Tensor
    rows: torch.Tensor

    @classmethod
    def of(cls, joined: torch.Tensor, tables: int) -> PooledRows:
        """Return the features [B, (T + 1) * D] as rows."""
        samples = len(joined)
        rows = torch.arange(samples * (tables + 1), dtype=torch.int32, device=joined.device)
        return cls(joined.view(samples * (tables + 1), -1), rows.view(samples, tables + 1)[:, 1:].contiguous())
