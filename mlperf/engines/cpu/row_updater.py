"""Update of the embedding tables on the CPU, by the loop that the optimizer and the type of the rows need.

B samples, T tables, D embedding dimension.
"""

from __future__ import annotations

from typing import Protocol

import torch

from mlperf.engines.cpu.loops import row_update
from mlperf.engines.cpu.loops.row_groups import row_groups, slot_bits
from mlperf.engines.cpu.loops.sgd_row_update import make_sgd_row_update
from mlperf.engines.cpu.loops.table_rows import row_kind
from mlperf.engines.cpu.workspace import Workspace
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer
from mlperf.optim.rowwise_adagrad import RowWiseAdagrad


class RowUpdater(Protocol):
    """Updates the rows of the tables."""

    def update(self, ids: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows `ids`, int64 [T, B], by their gradients, float32 [B, T, D]."""
        ...


def make_row_updater(tables: FlatTables, optimizer: Optimizer) -> RowUpdater:
    """Return the updater: SGD of float32 rows needs no sums of the gradients of a row."""
    if isinstance(optimizer, Adagrad) or tables.weight.dtype != torch.float32:
        return GroupedUpdater(tables, optimizer)
    return DirectUpdater(tables)


class DirectUpdater:
    """SGD of float32 rows: subtracts each gradient on its own."""

    def __init__(self, tables: FlatTables) -> None:
        self._update = make_sgd_row_update(tables.dimension).prepare(
            first_row=tables.first_row.data_ptr(),
            block=tables.weight.data_ptr(),
            rows=len(tables.weight),
            tables=len(tables.rows_per_table),
        )

    def update(self, ids: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows."""
        args = self._update.args
        args.ids, args.row_gradients = ids.data_ptr(), gradients.data_ptr()
        args.samples, args.rate = len(gradients), rate
        self._update.run()


class GroupedUpdater:
    """Sums the gradients of each row, then updates it: any optimizer and any type of rows."""

    def __init__(self, tables: FlatTables, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._workspace = Workspace()
        self._threads = torch.get_num_threads()
        count, dimension = len(tables.rows_per_table), tables.dimension
        self._scratch = torch.empty(self._threads * row_update.scratch_size(dimension))
        self._next_chunk = torch.empty(1, dtype=torch.int64)
        self._counts = torch.empty(count, dtype=torch.int64)
        shared = {
            "counts": self._counts.data_ptr(),
            "next_chunk": self._next_chunk.data_ptr(),
            "tables": count,
        }
        adagrad = {}
        if isinstance(optimizer, Adagrad):
            sums = optimizer.row_sums[tables.row_parameter]
            adagrad = {"sums": sums.data_ptr(), "epsilon": optimizer.epsilon}
        self._group = row_groups().prepare(**shared)
        self._update = row_update.make_row_update(
            _optimizer_constant(optimizer), row_kind(tables.weight.dtype)
        ).prepare(
            **shared,
            **adagrad,
            first_row=tables.first_row.data_ptr(),
            block=tables.weight.data_ptr(),
            rows=len(tables.weight),
            dimension=dimension,
            scratch=self._scratch.data_ptr(),
            seed=optimizer.seed,
        )

    def update(self, ids: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows."""
        bits, samples = slot_bits(len(gradients)), len(gradients)
        leaders = self._workspace.take("leaders", ids.shape, torch.int32)
        following = self._workspace.take("following", ids.shape, torch.int32)
        slots = self._workspace.take("slots", (self._threads, 1 << bits), torch.int32)
        for args in (self._group.args, self._update.args):
            args.ids, args.samples = ids.data_ptr(), samples
            args.leaders, args.following = leaders.data_ptr(), following.data_ptr()
        self._group.args.slots, self._group.args.slot_bits = slots.data_ptr(), bits
        self._group.run()
        args = self._update.args
        args.row_gradients, args.rate, args.step = gradients.data_ptr(), rate, self._optimizer.steps
        self._update.run()


def _optimizer_constant(optimizer: Optimizer) -> int:
    """Return the constant of `row_update` for an optimizer."""
    if isinstance(optimizer, RowWiseAdagrad):
        return row_update.ROW_WISE_ADAGRAD
    return row_update.ADAGRAD if isinstance(optimizer, Adagrad) else row_update.SGD
