"""Embedding tables of which some are compressed; each table is looked up separately.

B batch, T tables, D embedding dimension, L ids looked up in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.compressed_table import (
    Compression,
    MixedDimension,
    PrEmbeddingBag,
    make_table,
    mixed_dimensions,
)
from mlperf.models.layers.embedding.interface import EmbeddingTables
from mlperf.models.layers.embedding.pooling import PoolingWeights
from mlperf.models.layers.embedding.quantized import QuantizedRows
from mlperf.models.layers.embedding.rows import ReadableRows, RowGradients, RowParameter


def compressed_bytes(rows_per_table: Sequence[int], dimension: int, options: Compression) -> int:
    """Return the bytes that CompressedTables of these sizes need."""
    return CompressedTables(rows_per_table, dimension, options, torch.device("meta")).nbytes()


@dataclass
class GatheredRows:
    """Result of a lookup: rows [L] of parameters and their values [L, W], leaves of the autograd graph."""

    pooled: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    gathered: list[tuple[RowParameter, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def gather(self, parameter: RowParameter, rows: torch.Tensor, *, trained: bool) -> torch.Tensor:
        """Gather `rows` [L] of a parameter and record them if they are trained."""
        values = parameter.values.index_select(0, rows).detach()
        if trained:
            self.gathered.append((parameter, rows, values.requires_grad_()))
        return values

    def gradients(self) -> Iterator[RowGradients]:
        """Yield the gradients of each gather."""
        for parameter, rows, values in self.gathered:
            assert values.grad is not None
            yield RowGradients(parameter, rows, values.grad)


class CompressedTables(EmbeddingTables):
    """T tables, compressed or not, summed per sample.

    Autograd differentiates the path from the gathered rows to the pooled vectors. The vector of a sample is the
    sum of the vectors of its ids (times their pooling weights): with several ids, quotients and remainders are
    combined before they are summed.
    """

    def __init__(
        self, rows_per_table: Sequence[int], dimension: int, options: Compression, device: torch.device
    ) -> None:
        widths = [dimension] * len(rows_per_table)
        if isinstance(options, MixedDimension):
            widths = mixed_dimensions(rows_per_table, dimension, options)
        tables = [
            make_table(rows, dimension, width, options, device)
            for rows, width in zip(rows_per_table, widths, strict=True)
        ]
        super().__init__(tables, dimension, device)
        self._tables = tables
        self._first_row = [0, *accumulate(rows_per_table)]
        no_ids = torch.empty(0, dtype=torch.int64, device=device)
        self._row_parameters = {
            parameter: RowParameter(parameter.data, [parameter])
            for table in tables
            for parameter, _ in table.parts(no_ids)
        }
        self._quantized: dict[nn.Parameter, QuantizedRows] = {}

    def look_up(self, batch: Batch, pooling: PoolingWeights | None) -> GatheredRows:
        """Gather, combine and pool the rows of `batch`."""
        lookup = GatheredRows()
        pooled = []
        for number, (ids, bags) in enumerate(batch.ids_by_table()):
            table = self._tables[number]
            parts = [self._gather(lookup, parameter, rows) for parameter, rows in table.parts(ids)]
            vectors = table.combine(parts)  # (L, D)
            if pooling is not None:
                rows = ids + self._first_row[number]
                vectors = vectors * lookup.gather(pooling.row_parameter, rows, trained=pooling.learned)
            if bags is not None:
                empty = torch.zeros(batch.size, self.dimension, device=self.device)
                vectors = empty.index_add(0, bags, vectors)
            pooled.append(vectors)
        lookup.pooled = torch.stack(pooled, 1)
        return lookup

    def _gather(self, lookup: GatheredRows, parameter: nn.Parameter, rows: torch.Tensor) -> torch.Tensor:
        if parameter in self._quantized:
            return self._quantized[parameter].index_select(0, rows)
        return lookup.gather(self._row_parameters[parameter], rows, trained=True)

    def row_parameters(self) -> Sequence[RowParameter]:
        """Return the stored rows, one RowParameter per parameter; none once they are quantized."""
        return [] if self._quantized else list(self._row_parameters.values())

    def dense_parameters(self) -> Sequence[nn.Parameter]:
        """Return the maps of mixed-dimension tables."""
        return [
            parameter
            for table in self._tables
            if isinstance(table, PrEmbeddingBag)
            for parameter in table.proj.parameters()
        ]

    def quantize(self, bits: int) -> None:
        """Convert the rows to 8 or 4 bits; the maps of mixed-dimension tables stay float32."""
        for parameter, rows in self._row_parameters.items():
            self._quantized[parameter] = QuantizedRows(rows.values, bits)
            rows.values = parameter.data = parameter.data.new_empty(0, parameter.shape[1])

    def nbytes(self) -> int:
        """Return the memory of rows and maps in bytes."""
        stored: list[ReadableRows] = list(self._quantized.values())
        if not stored:
            stored = [rows.values for rows in self._row_parameters.values()]
        return sum(part.nbytes for part in chain(stored, self.dense_parameters()))
