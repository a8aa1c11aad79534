"""The rows of tables as the loops read them: by address."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mlperf.engines.cpu.loops.table_rows import quantized_kind, row_kind, stored_bytes
from mlperf.models.layers.embedding.quantized import QuantizedRows


@dataclass(frozen=True)
class RowBlock:
    """Rows of one type, R of dimension D.

    kind: a constant of `mlperf.engines.cpu.loops.table_rows`. memory: what keeps the rows alive.
    """

    address: int
    kind: int
    rows: int
    dimension: int
    memory: torch.Tensor = field(repr=False)

    @classmethod
    def of(cls, values: torch.Tensor | QuantizedRows) -> RowBlock:
        """Return the rows of a tensor [R, D], or quantized ones."""
        if isinstance(values, QuantizedRows):
            stored = values.stored
            return cls(stored.data_ptr(), quantized_kind(values.bits), len(stored), values.width, stored)
        return cls(values.data_ptr(), row_kind(values.dtype), len(values), values.shape[1], values)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return stored_bytes(self.kind, self.dimension)
