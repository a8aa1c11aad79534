"""Memory of batches that is used again: new memory costs a page fault every 4 KB, as much time as filling it."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch


class BufferPool:
    """Blocks of host memory of one size. A block is used again when no array or tensor refers to it any more.

    Several threads may use it. Blocks are freed with the pool, or later, with the last array or tensor in them.
    """

    def __init__(self, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self._free: deque[torch.Tensor] = deque()

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return `size` bytes of undefined contents, uint8 [size], aligned to 64 bytes. ValueError if too many."""
        if size > self.block_bytes:
            raise ValueError(f"size={size}: the blocks have {self.block_bytes} bytes")
        try:
            block = self._free.pop()
        except IndexError:
            block = torch.empty(self.block_bytes, dtype=torch.uint8)
        array = block.numpy()  # all views refer to this object: it ends when nothing refers to the block
        weakref.finalize(array, self._free.append, block).atexit = False
        return array[:size]
