"""Tensors of a checkpoint that stay in its files until they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from mlperf.util.divided_tensor import DescribedTensor


class StoredTensor(DescribedTensor):
    """A tensor in a file. label: its name there. fill: copies it to a tensor of its shape."""

    label: str
    fill: Callable[[torch.Tensor], None]

    @staticmethod
    def __new__(
        cls, label: str, shape: Sequence[int], dtype: torch.dtype, fill: Callable[[torch.Tensor], None]
    ) -> StoredTensor:
        stored = DescribedTensor.__new__(cls, shape, dtype)
        assert isinstance(stored, StoredTensor)
        stored.label, stored.fill = label, fill
        return stored

    def read(self) -> torch.Tensor:
        """Return the elements, in memory of their own. RunError if they are damaged or cannot be read."""
        elements = torch.empty(tuple(self.shape), dtype=self.dtype)
        self.fill(elements)
        return elements
