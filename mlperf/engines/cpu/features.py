"""From ids and the bottom MLP's output to the interaction on the CPU: dot products, or pooling and concatenation.

B samples, T tables, D embedding dimension, L ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from mlperf.engines.cpu.loops import interaction, pooling
from mlperf.engines.cpu.loops.table_rows import row_kind
from mlperf.engines.cpu.workspace import Workspace
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables


class Features(Protocol):
    """Looks up rows and combines them with the bottom MLP's output."""

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
    """Interaction of the bottom MLP's output and the rows of one id per table, [B, D + pairs].

    is_trained: whether `backward` is used.
    """

    def __init__(self, model: DLRM_Net, dtype: torch.dtype, workspace: Workspace, *, is_trained: bool) -> None:
        tables, architecture = model.tables, model.architecture
        assert isinstance(tables, FlatTables)
        self._dtype, self._workspace = dtype, workspace
        self._width = model.top_widths[0]
        sizes = (len(tables.rows_per_table), tables.dimension)
        self._shape = sizes
        self._scratch = torch.empty(torch.get_num_threads() * interaction.scratch_size(*sizes))
        shared = {
            "first_row": tables.first_row.data_ptr(),
            "block": tables.weight.data_ptr(),
            "scratch": self._scratch.data_ptr(),
            "rows": len(tables.weight),
            "bfloat16": dtype == torch.bfloat16,
        }
        kind = (*sizes, architecture.interaction_itself, row_kind(tables.weight.dtype))
        self._forward = interaction.make_forward(*kind).prepare(**shared)
        self._backward = interaction.make_backward(*kind).prepare(**shared) if is_trained else None

    def forward(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return the interaction of `bottom` [B, D] and the rows `ids` [T, B]."""
        interacted = self._workspace.take("interacted", (len(bottom), self._width), self._dtype)
        args = self._forward.args
        args.ids, args.bottom, args.interacted = ids.data_ptr(), bottom.data_ptr(), interacted.data_ptr()
        args.samples = len(bottom)
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


class PooledFeatures:
    """The bottom MLP's output and the pooled rows of each table, one after the other: [B, (T + 1) * D]."""

    def __init__(
        self, tables: FlatTables, ids_per_table: Sequence[int], dtype: torch.dtype, workspace: Workspace
    ) -> None:
        self._workspace = workspace
        self._count, self._dimension = len(tables.rows_per_table) + 1, tables.dimension
        self._sizes = torch.tensor(ids_per_table)
        self._total = int(self._sizes.sum())
        self._scratch = torch.empty(torch.get_num_threads() * pooling.scratch_size(tables.dimension))
        self._pool = pooling.make_pooling(row_kind(tables.weight.dtype)).prepare(
            sizes=self._sizes.data_ptr(),
            first_row=tables.first_row.data_ptr(),
            block=tables.weight.data_ptr(),
            scratch=self._scratch.data_ptr(),
            tables=len(tables.rows_per_table),
            rows=len(tables.weight),
            dimension=tables.dimension,
            bfloat16=dtype == torch.bfloat16,
        )

    def forward(self, ids: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """Return `bottom` [B, D] and the sums of the rows of each bag of `ids` [L]."""
        assert ids.numel() == len(bottom) * self._total
        joined = self._workspace.take("joined", (len(bottom), self._count * self._dimension), bottom.dtype)
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
