"""What embedding tables and optimizers agree on: parameters that are trained row by row, and their gradients.

A batch reads a few rows of tables that may hold millions. The tables therefore have no gradient of their own
size and no part in the autograd graph below the pooled vectors: a lookup says, after the backward pass, which
rows it read and what their gradients are, and the optimizer updates those rows.

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
    """Rows of one width that are trained row by row; the unit of which an optimizer keeps state.

    values: float32 [R, W]. parameters: the same memory as the state_dict names it, one nn.Parameter after the
    other, of [rows, W] each (pooling weights, W = 1: of [rows]).
    """

    values: torch.Tensor
    parameters: Sequence[nn.Parameter]


@dataclass(frozen=True)
class RowGradients:
    """rows: int64 [L], rows of `parameter`; any row any number of times. gradients: float32 [L, W]."""

    parameter: RowParameter
    rows: torch.Tensor
    gradients: torch.Tensor


class Lookup(Protocol):
    """What a lookup read. pooled: float32 [B, T, D], the part that autograd knows."""

    pooled: torch.Tensor

    def gradients(self) -> Iterable[RowGradients]:
        """Return the gradients of the rows that were read. Only after the backward pass."""
        ...


class ReadableRows(Protocol):
    """Rows that can be read by number: a tensor [R, W], or quantized rows."""

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Return the rows `index` [L] as float32 [L, W]."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        ...
