"""The batch: what every data source yields and the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Batch:
    """B samples of a click log with T sparse features.

    dense:   float32 [B, number of dense features], already transformed, ready for the bottom MLP.
    indices: int64. One id per table and sample: [T, B], and `offsets` is None.
             Several: [L], the ids of table 0, sample 0 first, then table 0, sample 1, and so on.
    offsets: int64 [T, B], where in `indices` the ids of a table and sample begin, or None.
    labels:  float32 [B, 1].
    """

    dense: torch.Tensor
    indices: torch.Tensor
    offsets: torch.Tensor | None
    labels: torch.Tensor

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.labels.shape[0]

    def bags(self) -> torch.Tensor:
        """Return where each id belongs, int64 [L]: table * B + sample. Only where `offsets` are given."""
        assert self.offsets is not None
        starts = self.offsets.flatten()
        stops = torch.cat((starts[1:], starts.new_tensor([len(self.indices)])))
        return torch.repeat_interleave(torch.arange(len(starts), device=starts.device), stops - starts)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; pinned memory is copied without blocking the host."""
        return Batch(
            self.dense.to(device, non_blocking=True),
            self.indices.to(device, non_blocking=True),
            None if self.offsets is None else self.offsets.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
        )

    def pin(self) -> Batch:
        """Return the batch in page-locked host memory, from where a GPU copies without waiting."""
        return Batch(
            self.dense.pin_memory(),
            self.indices.pin_memory(),
            None if self.offsets is None else self.offsets.pin_memory(),
            self.labels.pin_memory(),
        )


@dataclass(frozen=True)
class RowSource:
    """Where rows of the Criteo binary file come from and what is valid in them.

    rows_per_table: valid indices of table T are 0 to rows_per_table[T] - 1. max_ind_range > 0: indices are taken
    modulo it first.
    """

    path: Path
    rows_per_table: tuple[int, ...]
    max_ind_range: int = -1


@dataclass(frozen=True)
class RawBatch:
    """B samples as the Criteo binary file has them, for a device that decodes them itself.

    rows: int32 [B, 1 + 13 + 26], label, integers, indices. first_row: number of the first in the file, from 0.
    """

    rows: torch.Tensor
    first_row: int
    source: RowSource

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.rows.shape[0]
