"""The interface of the embedding tables of a model.

B batch, T tables, D embedding dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.pooling import PoolingWeights
from mlperf.models.layers.embedding.rows import Lookup, RowParameter


class Tables(nn.ModuleList, ABC):
    """T embedding tables that are looked up together; entry K is table K.

    It is a ModuleList, so that assigned to `emb_l` its parameters are `emb_l.K.weight` in a state_dict, the
    names of existing checkpoints, and that the printed model shows what it always did. Weights are undefined
    until they are initialized or loaded. Tables stay on the device on which they are built, since parameters may
    be views of one block.
    """

    def __init__(self, tables: Iterable[nn.Module], dimension: int, device: torch.device) -> None:
        super().__init__(tables)
        self.dimension = dimension
        self.device = device

    def forward(self, batch: Batch, pooling: PoolingWeights | None = None) -> torch.Tensor:
        """Return the pooled vectors of `batch`, float32 [B, T, D]."""
        return self.look_up(batch, pooling).pooled

    @abstractmethod
    def look_up(self, batch: Batch, pooling: PoolingWeights | None) -> Lookup:
        """Gather the rows of `batch`, weighted by `pooling` if it is given, and sum them per sample."""

    @abstractmethod
    def row_parameters(self) -> Sequence[RowParameter]:
        """Return what an optimizer trains row by row; nothing once the rows are quantized."""

    def dense_parameters(self) -> Sequence[nn.Parameter]:
        """Return what is trained like the weights of the MLPs, from its `.grad`."""
        return ()

    @abstractmethod
    def quantize(self, bits: int) -> None:
        """Store the rows in 8 or 4 bits from now on; only lookups without gradients work afterwards."""

    @abstractmethod
    def nbytes(self) -> int:
        """Return the memory of the tables in bytes, quantized or not."""

    def _get_name(self) -> str:
        """Return the class that printed models show."""
        return "ModuleList"
