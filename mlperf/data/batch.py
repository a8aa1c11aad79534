"""The batch: what every data source yields and the model takes."""

from __future__ import annotations

from dataclasses import dataclass

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
