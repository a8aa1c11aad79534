"""Row-wise parameters and their gradients, shared by embedding tables and optimizers.

A batch reads a few rows of tables with millions of rows. Tables therefore get no dense gradient and are not part
of the autograd graph. After the backward pass, a lookup provides the rows it read and their gradients, and the
optimizer updates these rows.

R rows, W values in a row, L rows read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


@dataclass(eq=False)
class RowParameter:
    """Rows of one width that are trained row by row; optimizers keep state per RowParameter.

    values: [R, W], float32 or, with --embedding-precision, bfloat16 or float16.
    parameters: the same memory as consecutive parameters of the state_dict, [rows, W] each ([rows] for pooling
        weights, W = 1).
    """

    values: torch.Tensor
    parameters: Sequence[nn.Parameter]


@dataclass(frozen=True)
class RowGradients:
    """rows: int64 [L], rows of `parameter`, with duplicates. gradients: float32 [L, W]."""

    parameter: RowParameter
    rows: torch.Tensor
    gradients: torch.Tensor


class Lookup(Protocol):
    """Result of a lookup. pooled: float32 [B, T, D], differentiated by autograd."""

    pooled: torch.Tensor

    def gradients(self) -> Iterable[RowGradients]:
        """Return the gradients of the rows that were read. Valid after the backward pass."""
        ...


class ReadableRows(Protocol):
    """Rows that can be read by number: a tensor [R, W], or quantized rows."""

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Return the rows `index` [L] as [L, W], in the dtype of the tensor or, if quantized, in float32."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        ...
