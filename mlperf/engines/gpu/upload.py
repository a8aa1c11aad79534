"""Copy the rows of batches to the device while it computes the previous step."""

from __future__ import annotations

import torch

# Maximum number of batches that are copied but not yet used by the device.
_MAX_LEAD = 3


class Upload:
    """Copies the rows of successive batches to the device; on a CPU it returns them unchanged.

    `copy` starts a copy and returns the rows on the device. They are valid for kernels launched before the call of
    `done`.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        if self._on_gpu:
            self._stream = torch.cuda.Stream(device)
            self._slots: list[torch.Tensor | None] = [None] * _MAX_LEAD
            self._copied = [torch.cuda.Event() for _ in range(_MAX_LEAD)]
            self._used = [torch.cuda.Event() for _ in range(_MAX_LEAD)]
            self._turn = 0
            self._device = device

    def copy(self, rows: torch.Tensor) -> torch.Tensor:
        """Return `rows`, int32 [B, columns] in pinned memory, on the device.

        Waits until the device has used the batch copied `_MAX_LEAD` calls earlier.
        """
        if not self._on_gpu:
            return rows
        turn = self._turn
        self._used[turn].synchronize()  # returns at once if nothing was recorded
        slot = self._slots[turn]
        if slot is None or slot.shape != rows.shape:
            slot = self._slots[turn] = torch.empty_like(rows, device=self._device, pin_memory=False)
            # The allocator may return memory that the current stream still uses: wait for that before copying.
            self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            slot.copy_(rows, non_blocking=True)
            self._copied[turn].record()
        torch.cuda.current_stream().wait_event(self._copied[turn])
        return slot

    def done(self) -> None:
        """Mark the last copied rows as used: all kernels that read them have been launched."""
        if self._on_gpu:
            self._used[self._turn].record()
            self._turn = (self._turn + 1) % _MAX_LEAD
