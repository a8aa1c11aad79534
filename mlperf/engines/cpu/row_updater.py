"""Update of the embedding tables on the CPU, by the loop that the optimizer and the type of the rows need.

B samples, T tables, D embedding dimension, L ids.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from mlperf.optim.sgd import SGD


class RowUpdater(Protocol):
    """Updates the rows of the tables."""

    def update(self, ids: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows `ids`, int64 [L], by the gradients of their bags, float32 [B, T, D].

        ids: as `Batch.indices`.
        """
        ...


def make_row_updater(
    tables: FlatTables, optimizer: Optimizer, ids_per_table: Sequence[int] | None = None
) -> RowUpdater:
    """Return the updater. ids_per_table: None for the only one that `DirectUpdater` supports.

    SGD of float32 rows needs no sums of the gradients of a row.
    """
    if ids_per_table is None and isinstance(optimizer, SGD) and tables.weight.dtype == torch.float32:
        return DirectUpdater(tables)
    return GroupedUpdater(tables, optimizer, ids_per_table)


class DirectUpdater:
    """SGD of float32 rows with one id per table: subtracts each gradient on its own."""

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
    """Sums the gradients of each row, then updates it: any optimizer, any type of rows, any number of ids.

    ids_per_table: ids of a bag of each table; None: one.
    """

    def __init__(
        self, tables: FlatTables, optimizer: Optimizer, ids_per_table: Sequence[int] | None = None
    ) -> None:
        self._optimizer = optimizer
        self._workspace = Workspace()
        self._threads = torch.get_num_threads()
        count, dimension = len(tables.rows_per_table), tables.dimension
        self._sizes = torch.tensor(ids_per_table or [1] * count)
        self._most = int(self._sizes.max())
        self._total = int(self._sizes.sum())
        self._before = self._sizes.cumsum(0) - self._sizes
        self._order = self._sizes.argsort(descending=True, stable=True)
        self._scratch = torch.empty(self._threads * row_update.scratch_size(dimension))
        self._counters = torch.empty(2, dtype=torch.int64)  # next_table, next_chunk
        self._counts = torch.empty(count, dtype=torch.int64)
        shared = {
            "sizes": self._sizes.data_ptr(),
            "before": self._before.data_ptr(),
            "counts": self._counts.data_ptr(),
            "tables": count,
        }
        adagrad = {}
        if isinstance(optimizer, Adagrad):
            sums = optimizer.row_sums[tables.row_parameter]
            adagrad = {"sums": sums.data_ptr(), "epsilon": optimizer.epsilon}
        next_table, next_chunk = (one.data_ptr() for one in self._counters)
        self._group = row_groups().prepare(**shared, order=self._order.data_ptr(), next_table=next_table)
        self._update = row_update.make_row_update(
            _optimizer_constant(optimizer), row_kind(tables.weight.dtype)
        ).prepare(
            **shared,
            **adagrad,
            next_chunk=next_chunk,
            first_row=tables.first_row.data_ptr(),
            block=tables.weight.data_ptr(),
            rows=len(tables.weight),
            dimension=dimension,
            scratch=self._scratch.data_ptr(),
            seed=optimizer.seed,
        )

    def update(self, ids: torch.Tensor, gradients: torch.Tensor, rate: float) -> None:
        """Update the rows. gradients: may be a part of a wider tensor, with samples further apart."""
        samples, positions = len(gradients), ids.numel()
        assert positions == samples * self._total
        bits = slot_bits(samples * self._most)
        leaders = self._workspace.take("leaders", (positions,), torch.int32)
        following = self._workspace.take("following", (positions,), torch.int32)
        slots = self._workspace.take("slots", (self._threads, 1 << bits), torch.int32)
        self._counters.zero_()
        for args in (self._group.args, self._update.args):
            args.ids, args.samples = ids.data_ptr(), samples
            args.leaders, args.following = leaders.data_ptr(), following.data_ptr()
        self._group.args.slots, self._group.args.slot_bits = slots.data_ptr(), bits
        self._group.run()
        args = self._update.args
        args.bag_gradients, args.stride = gradients.data_ptr(), gradients.stride(0) // gradients.shape[2]
        args.rate, args.step = rate, self._optimizer.steps
        self._update.run()


def _optimizer_constant(optimizer: Optimizer) -> int:
    """Return the constant of `row_update` for an optimizer."""
    if isinstance(optimizer, RowWiseAdagrad):
        return row_update.ROW_WISE_ADAGRAD
    return row_update.ADAGRAD if isinstance(optimizer, Adagrad) else row_update.SGD
