"""From ids and the bottom MLP's output to the interaction on the CPU: dot products, or pooling and concatenation.

B samples, T tables, D embedding dimension, L ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from mlperf.engines.cpu.loops import interaction, pooling
from mlperf.engines.cpu.row_block import RowBlock
from mlperf.engines.cpu.workspace import Workspace
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.embedding.flat_tables import FlatTables

# Up to this many samples, the lookup takes less time than to start the other threads.
_ALONE = 2


class Features(Protocol):
    """Looks up rows and combines them with the bottom MLP's output."""

    def output(self, samples: int) -> torch.Tensor:
        """Return the memory where `forward` writes the combinations of `samples` samples, [B, width]."""
        ...

    def forward(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the combination of `bottom` [B, D] and the rows `ids`, as `Batch.indices`."""
        ...

    def backward(
        self, ids: torch.Tensor, bottom: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of `bottom` [B, D] and of the bags, float32 [B, T, D].

        gradient: gradient of the combination.
        """
        ...


class DotProducts:
    """Interaction of the bottom MLP's output and one row of each table, [B, D + pairs].

    block: the rows. first_row: int64 [T], first row of each table in it. is_trained: whether `backward` is used.
    """

    def __init__(
        self,
        model: DLRM_Net,
        block: RowBlock,
        first_row: torch.Tensor,
        dtype: torch.dtype,
        workspace: Workspace,
        *,
        is_trained: bool,
    ) -> None:
        self._dtype, self._workspace = dtype, workspace
        self._kept = (block, first_row)  # the loops read them by address
        self._width = model.top_widths[0]
        sizes = (len(first_row), block.dimension)
        self._shape = sizes
        self._scratch = torch.empty(torch.get_num_threads() * interaction.scratch_size(*sizes))
        shared = {
            "first_row": first_row.data_ptr(),
            "block": block.address,
            "scratch": self._scratch.data_ptr(),
            "rows": block.rows,
            "bfloat16": dtype == torch.bfloat16,
        }
        kind = (*sizes, model.architecture.interaction_itself, block.kind)
        self._forward = interaction.make_forward(*kind).prepare(**shared)
        self._backward = interaction.make_backward(*kind).prepare(**shared) if is_trained else None

    def read_rows_of(self, block: torch.Tensor) -> None:
        """Take the rows from another block [R, D], of the same type."""
        for loop in (self._forward, self._backward):
            if loop is not None:
                loop.args.block, loop.args.rows = block.data_ptr(), len(block)

    def output(self, samples: int) -> torch.Tensor:
        """Return the memory where `forward` writes, [B, D + pairs]."""
        return self._workspace.take("interacted", (samples, self._width), self._dtype)

    def forward(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the rows `ids` [T, B]."""
        interacted = self.output(len(bottom))
        args = self._forward.args
        args.ids, args.bottom, args.interacted = ids.data_ptr(), bottom.data_ptr(), interacted.data_ptr()
        args.samples = len(bottom)
        if len(bottom) <= _ALONE:
            self._forward.run_alone()
        else:
            self._forward.run()
        return interacted

    def backward(
        self, ids: torch.Tensor, bottom: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of `bottom` [B, D] and of the rows read, float32 [B, T, D]."""
        assert self._backward is not None
        samples = len(gradient)
        row_gradients = self._workspace.take("row gradients", (samples, *self._shape), torch.float32)
        bottom_gradient = self._workspace.take("bottom gradient", bottom.shape, self._dtype)
        args = self._backward.args
        args.ids, args.bottom, args.gradient = ids.data_ptr(), bottom.data_ptr(), gradient.data_ptr()
        args.bottom_gradient, args.row_gradients = bottom_gradient.data_ptr(), row_gradients.data_ptr()
        args.samples = samples
        self._backward.run()
        return bottom_gradient, row_gradients


class PooledDotProducts:
    """Interaction of the bottom MLP's output and the pooled rows of each table, [B, D + pairs].

    The features of each sample, float32 [B, T + 1, D], are pooled first, and are then the rows of the products.
    """

    def __init__(
        self,
        model: DLRM_Net,
        ids_per_table: Sequence[int],
        dtype: torch.dtype,
        workspace: Workspace,
        *,
        is_trained: bool,
    ) -> None:
        tables = model.tables
        assert isinstance(tables, FlatTables)
        self._pooled = PooledFeatures(tables, ids_per_table, torch.float32, workspace)
        self._count = len(tables.rows_per_table)
        self._first_row = torch.arange(
            1, self._count + 1
        )  # of a sample's features, behind the bottom MLP's output
        nothing = RowBlock.of(torch.empty(0, tables.dimension))
        self._products = DotProducts(model, nothing, self._first_row, dtype, workspace, is_trained=is_trained)
        self._samples = torch.empty(self._count, 0, dtype=torch.int64)

    def output(self, samples: int) -> torch.Tensor:
        """Return the memory where `forward` writes, [B, D + pairs]."""
        return self._products.output(samples)

    def forward(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the sums of the rows of each bag of `ids` [L]."""
        features = self._pooled.forward(ids, bottom.float())
        self._products.read_rows_of(features.view(-1, bottom.shape[1]))
        return self._products.forward(self._rows_of_samples(len(bottom)), bottom)

    def backward(
        self, ids: torch.Tensor, bottom: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of `bottom` [B, D] and of the bags, float32 [B, T, D]. Follows `forward`."""
        return self._products.backward(self._rows_of_samples(len(bottom)), bottom, gradient)

    def _rows_of_samples(self, samples: int) -> torch.Tensor:
        """Return the first row of each sample, int64 [T, B]."""
        if self._samples.shape[1] != samples:
            rows = torch.arange(samples) * (self._count + 1)
            self._samples = rows.repeat(self._count, 1)
        return self._samples


class PooledFeatures:
    """The bottom MLP's output and the pooled rows of each table, one after the other: [B, (T + 1) * D]."""

    def __init__(
        self, tables: FlatTables, ids_per_table: Sequence[int], dtype: torch.dtype, workspace: Workspace
    ) -> None:
        self._dtype, self._workspace = dtype, workspace
        self._block = RowBlock.of(tables.stored)
        self._first_row = tables.first_row
        self._count, self._dimension = len(tables.rows_per_table) + 1, tables.dimension
        self._sizes = torch.tensor(ids_per_table)
        self._total = int(self._sizes.sum())
        self._scratch = torch.empty(torch.get_num_threads() * pooling.scratch_size(tables.dimension))
        self._pool = pooling.make_pooling(self._block.kind).prepare(
            sizes=self._sizes.data_ptr(),
            first_row=self._first_row.data_ptr(),
            block=self._block.address,
            scratch=self._scratch.data_ptr(),
            tables=len(tables.rows_per_table),
            rows=self._block.rows,
            row_bytes=self._block.row_bytes,
            dimension=tables.dimension,
            bfloat16=dtype == torch.bfloat16,
        )

    def output(self, samples: int) -> torch.Tensor:
        """Return the memory where `forward` writes, [B, (T + 1) * D]."""
        return self._workspace.take("joined", (samples, self._count * self._dimension), self._dtype)

    def forward(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return `bottom` [B, D] and the sums of the rows of each bag of `ids` [L]."""
        assert ids.numel() == len(bottom) * self._total
        joined = self.output(len(bottom))
        args = self._pool.args
        args.ids, args.bottom, args.joined = ids.data_ptr(), bottom.data_ptr(), joined.data_ptr()
        args.samples = len(bottom)
        self._pool.run()
        return joined

    def backward(
        self, ids: torch.Tensor, bottom: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of `bottom` [B, D] and of the bags, float32 [B, T, D], a view of `gradient`.

        gradient: float32 [B, (T + 1) * D].
        """
        by_feature = gradient.view(len(gradient), self._count, self._dimension)
        return by_feature[:, 0].to(bottom.dtype, copy=True).contiguous(), by_feature[:, 1:]


def make_features(
    model: DLRM_Net,
    ids_per_table: Sequence[int] | None,
    dtype: torch.dtype,
    workspace: Workspace,
    *,
    is_trained: bool = False,
) -> Features:
    """Return the lookup of a model. ids_per_table: ids of each table and sample; None: one."""
    tables = model.tables
    assert isinstance(tables, FlatTables)
    if isinstance(model.interaction, CrossInteraction):
        return PooledFeatures(tables, ids_per_table or [1] * len(tables.rows_per_table), dtype, workspace)
    if ids_per_table is not None:
        return PooledDotProducts(model, ids_per_table, dtype, workspace, is_trained=is_trained)
    block = RowBlock.of(tables.stored)
    return DotProducts(model, block, tables.first_row, dtype, workspace, is_trained=is_trained)
