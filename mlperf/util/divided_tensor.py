"""Tensors whose elements are not in one place of this process's memory: only shape and dtype are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


class DescribedTensor(torch.Tensor):
    """A dense tensor on the CPU, of which this object has the shape and the dtype. Operations on it fail."""

    @staticmethod
    def __new__(cls, shape: Sequence[int], dtype: torch.dtype) -> DescribedTensor:
        return torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=torch.device("cpu"))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise NotImplementedError(f"{func} of a tensor whose elements are elsewhere")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Return class, shape and dtype."""
        return f"{type(self).__name__}({list(self.shape)}, {self.dtype})"


@dataclass(frozen=True)
class Part:
    """A rectangle of a tensor. values: in place, with the dimensions of the tensor. offsets: its first element."""

    values: torch.Tensor
    offsets: tuple[int, ...]

    def t(self) -> Part:
        """Return this part of a matrix as one of the transposed matrix."""
        return Part(self.values.t(), self.offsets[::-1])

    def copy_rows(self, rows: torch.Tensor, first: int) -> None:
        """Copy what this part has of `rows` [N, D], those of the whole matrix [R, D] from number `first` on."""
        row, column = self.offsets
        start, stop = max(first, row), min(first + len(rows), row + len(self.values))
        if start < stop:
            columns = slice(column, column + self.values.shape[1])
            self.values[start - row : stop - row] = rows[start - first : stop - first, columns]


class DividedTensor(DescribedTensor):
    """A tensor that is divided among the processes. parts: those of this process, none to all."""

    parts: Sequence[Part]

    @staticmethod
    def __new__(cls, shape: Sequence[int], dtype: torch.dtype, parts: Sequence[Part]) -> DividedTensor:
        divided = DescribedTensor.__new__(cls, shape, dtype)
        assert isinstance(divided, DividedTensor)
        divided.parts = parts
        return divided


def parts_here(tensor: torch.Tensor) -> list[Part]:
    """Return the parts of a tensor that this process has: all of it, unless it is divided."""
    if isinstance(tensor, DividedTensor):
        return list(tensor.parts)
    return [Part(tensor, (0,) * tensor.dim())]


def range_here(tensor: torch.Tensor) -> tuple[float, float]:
    """Return the smallest and the largest element that this process has; 0 and 0 if there are none."""
    limits = [torch.aminmax(part.values) for part in parts_here(tensor) if part.values.numel()]
    if not limits:
        return 0.0, 0.0
    low, high = torch.stack([pair[0] for pair in limits]), torch.stack([pair[1] for pair in limits])
    return float(low.min()), float(high.max())  # NaN if an element is
