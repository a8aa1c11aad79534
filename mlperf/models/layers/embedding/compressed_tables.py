"""Embedding tables of which some are compressed: each is looked up by itself.

B batch, T tables, D embedding dimension, L ids looked up in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

import torch
from torch import nn

from mlperf.data.batch import Batch
from mlperf.models.layers.embedding.blocks import Block, RowGradients, Rows
from mlperf.models.layers.embedding.compression import (
    CompressedTable,
    Compression,
    MixedDimension,
    PrEmbeddingBag,
    make_table,
    mixed_dimensions,
)
from mlperf.models.layers.embedding.quantized import QuantizedRows


@dataclass
class GatheredRows:
    """What a lookup read of the blocks: rows [L] and their values [L, W], leaves of the autograd graph."""

    pooled: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    gathered: list[tuple[Block, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def gradients(self) -> Iterator[RowGradients]:
        """Yield the gradients of each gather."""
        for block, rows, values in self.gathered:
            assert values.grad is not None
            yield RowGradients(block, rows, values.grad)


class CompressedTables:
    """T tables, compressed or not, summed per sample. What is between rows and pooled vectors is autograd's.

    A sample's vector is the sum over its ids of each id's vector (times its pooling weight): with several ids,
    quotients and remainders are combined before they are summed.
    """

    def __init__(
        self,
        rows_per_table: Sequence[int],
        dimension: int,
        how: Compression,
        weighted: str | None,
        device: torch.device,
    ) -> None:
        self.dimension = dimension
        self.device = device
        narrow = [dimension] * len(rows_per_table)
        if isinstance(how, MixedDimension):
            narrow = mixed_dimensions(rows_per_table, dimension, how)
        self._tables: list[CompressedTable] = [
            make_table(rows, dimension, width, how, device)
            for rows, width in zip(rows_per_table, narrow, strict=True)
        ]
        self.modules = nn.ModuleList(self._tables)
        self.dense: Sequence[nn.Parameter] = [
            parameter
            for table in self._tables
            if isinstance(table, PrEmbeddingBag)
            for parameter in table.proj.parameters()
        ]
        none = torch.empty(0, dtype=torch.int64, device=device)
        by_rows = [parameter for table in self._tables for parameter, _ in table.parts(none)]
        self._block_of: dict[torch.Tensor, Block] = {}
        for parameter in by_rows:
            assert isinstance(parameter, nn.Parameter)
            self._block_of[parameter] = Block(parameter.data, [parameter])
        self._rows_of: dict[Block, Rows] = {block: block.values for block in self._block_of.values()}
        self.blocks: Sequence[Block] = list(self._block_of.values())
        self.pooling: nn.ParameterList | None = None
        if weighted:
            weights = [nn.Parameter(torch.ones(rows, device=device)) for rows in rows_per_table]
            self.pooling = nn.ParameterList(weights)
            self._pooling_blocks = [Block(weight.data.unsqueeze(1), [weight]) for weight in weights]
            if weighted == "learned":
                self.blocks = [*self.blocks, *self._pooling_blocks]

    def look_up(self, batch: Batch) -> GatheredRows:
        """Gather, combine and pool the rows of `batch`."""
        lookup = GatheredRows()
        pooled = []
        for number, (ids, bags) in enumerate(_ids_by_table(batch)):
            table = self._tables[number]
            parts = [self._gather(lookup, self._block_of[of], rows) for of, rows in table.parts(ids)]
            vectors = table.combine(parts)  # (L, D)
            if self.pooling is not None:
                vectors = vectors * self._gather(lookup, self._pooling_blocks[number], ids)
            if bags is not None:
                empty = torch.zeros(batch.size, self.dimension, device=self.device)
                vectors = empty.index_add(0, bags, vectors)
            pooled.append(vectors)
        lookup.pooled = torch.stack(pooled, 1)
        return lookup

    def _gather(self, lookup: GatheredRows, block: Block, rows: torch.Tensor) -> torch.Tensor:
        values = self._rows_of.get(block, block.values).index_select(0, rows).detach()
        if block in self.blocks:
            lookup.gathered.append((block, rows, values.requires_grad_()))
        return values

    def quantize(self, bits: int) -> None:
        """Keep the rows in 8 or 4 bits from here on; the maps of mixed dimensions stay float32."""
        for parameter, block in self._block_of.items():
            self._rows_of[block] = QuantizedRows(block.values, bits)
            block.values = parameter.data = parameter.data.new_empty(0, parameter.shape[1])
        self.blocks = []

    def nbytes(self) -> int:
        """Return the memory of rows, maps and pooling weights."""
        pooling = self.pooling if self.pooling is not None else ()
        return sum(rows.nbytes for rows in chain(self._rows_of.values(), self.dense, pooling))


def _ids_by_table(batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yield, for each table, its ids [L] and the sample that each belongs to (None: id i to sample i)."""
    if batch.offsets is None:
        for ids in batch.indices:
            yield ids, None
        return
    bags = batch.bags() % batch.size
    bounds = [*batch.offsets[:, 0].tolist(), len(batch.indices)]  # on a GPU this waits for it
    for start, stop in pairwise(bounds):
        yield batch.indices[start:stop], bags[start:stop]
