"""What embedding tables and optimizer share: blocks of rows, and what a lookup read of them.

R rows, W values in a row, L rows read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from mlperf.data.batch import Batch


class Rows(Protocol):
    """Whatever rows can be read from by number: a tensor [R, W], or its quantized stand-in."""

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Return the rows `index` [L] as float32 [L, W]."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory they take."""
        ...


@dataclass(eq=False)
class Block:
    """Rows of one width, updated together.

    values: float32 [R, W]. parameters: the same memory as the model's state_dict names it, one after the
    other (the rows of pooling weights, W = 1, are scalars there).
    """

    values: torch.Tensor
    parameters: Sequence[nn.Parameter]


@dataclass
class RowGradients:
    """rows: int64 [L], any row any number of times. gradients: float32 [L, W]."""

    block: Block
    rows: torch.Tensor
    gradients: torch.Tensor


class Lookup(Protocol):
    """What a lookup read. pooled: float32 [B, T, D]; it takes part in the autograd graph."""

    pooled: torch.Tensor

    def gradients(self) -> Iterable[RowGradients]:
        """Return the gradients of the rows read, once each, after the backward pass."""
        ...


class Tables(Protocol):
    """T embedding tables. Weights are undefined until they are initialized or loaded.

    modules: what the state_dict shows as `emb_l`. pooling: what it shows as `v_W_l`, or None. blocks: what is
    trained row by row; dense: what is trained as the MLPs are.
    """

    modules: nn.ModuleList
    pooling: nn.ParameterList | None
    blocks: Sequence[Block]
    dense: Sequence[nn.Parameter]
    device: torch.device

    def look_up(self, batch: Batch) -> Lookup:
        """Gather and pool the rows of `batch`."""
        ...

    def quantize(self, bits: int) -> None:
        """Keep the rows in 8 or 4 bits from here on; only lookups without gradients work afterwards."""
        ...

    def nbytes(self) -> int:
        """Return the memory of the tables, quantized or not, pooling weights included."""
        ...
