"""Copy the rows of batches to the device while it computes the previous step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Maximum number of batches that are copied but not yet used by the device.
_MAX_LEAD = 3


@dataclass(frozen=True, eq=False)
class RawRows:
    """The rows and ids of a `RawBatch`, of several ids per table, in host memory or on the device.

    rows: int32 [B, columns]. ids: int32 [L], or None if the ids of `rows` are used.
    """

    rows: torch.Tensor
    ids: torch.Tensor | None = None

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """The tensors that there are."""
        return (tensor for tensor in (self.rows, self.ids) if tensor is not None)

    def is_like(self, other: RawRows) -> bool:
        """Return whether both have the same tensors in the same shapes."""
        return [tensor.shape for tensor in self.tensors] == [tensor.shape for tensor in other.tensors]

    def copy_(self, source: RawRows) -> None:
        """Fill the tensors with those of `source`, which `is_like` this."""
        for own, new in zip(self.tensors, source.tensors, strict=True):
            own.copy_(new, non_blocking=True)


class Upload:
    """Copies the rows of successive batches to the device; on a CPU it returns them unchanged.

    `copy` starts a copy and returns the rows on the device. They are valid for kernels launched before the call of
    `done`.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        if self._on_gpu:
            self._stream = torch.cuda.Stream(device)
            self._slots: list[RawRows | None] = [None] * _MAX_LEAD
            self._copied = [torch.cuda.Event() for _ in range(_MAX_LEAD)]
            self._used = [torch.cuda.Event() for _ in range(_MAX_LEAD)]
            self._turn = 0
            self._device = device

    def copy(self, rows: RawRows) -> RawRows:
        """Return `rows`, in pinned memory, on the device.

        Waits until the device has used the batch copied `_MAX_LEAD` calls earlier.
        """
        if not self._on_gpu:
            return rows
        turn = self._turn
        self._used[turn].synchronize()  # returns at once if nothing was recorded
        slot = self._slots[turn]
        if slot is None or not slot.is_like(rows):
            slot = self._slots[turn] = RawRows(*(self._empty_like(tensor) for tensor in rows.tensors))
            # The allocator may return memory that the current stream still uses: wait for that before copying.
            self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            slot.copy_(rows)
            self._copied[turn].record()
        torch.cuda.current_stream().wait_event(self._copied[turn])
        return slot

    def _empty_like(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device=self._device, pin_memory=False)

    def done(self) -> None:
        """Mark the last copied rows as used: all kernels that read them have been launched."""
        if self._on_gpu:
            self._used[self._turn].record()
            self._turn = (self._turn + 1) % _MAX_LEAD
