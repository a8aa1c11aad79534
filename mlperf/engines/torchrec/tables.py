"""Embedding tables whose rows are divided among the processes. D embedding dimension."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed import comm
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingEnv
from torchrec.distributed.utils import optimizer_type_to_emb_opt_type

from mlperf.data.batch import Batch
from mlperf.distributed.agreement import decided_by_first, values_of_all
from mlperf.distributed.processes import Processes, current
from mlperf.engines.torchrec.features import table_name
from mlperf.engines.torchrec.placement import TableMemory, describe_placements
from mlperf.engines.torchrec.plan import (
    FUSED_OPTIMIZERS,
    Sharder,
    make_collection,
    make_plan,
    placements,
    state_optimizer,
)
from mlperf.models.layers.embedding.interface import EmbeddingTables
from mlperf.models.layers.embedding.pooling import PoolingWeights
from mlperf.models.layers.embedding.rows import Lookup, RowParameter
from mlperf.models.layers.embedding.shards import ShardedTable
from mlperf.settings.model import Architecture
from mlperf.settings.settings import Settings
from mlperf.util.divided_tensor import DividedTensor, Part

_log = logging.getLogger(__name__)

_LOCAL_SIZE = "LOCAL_WORLD_SIZE"


class ShardedTables(EmbeddingTables):
    """All tables, sharded by TorchRec.

    sharded: TorchRec's module, which looks up rows and updates them in its backward pass. It is not a submodule
    here, so that the parameters of the model are those that all processes have.
    """

    def __init__(
        self, architecture: Architecture, settings: Settings, device: torch.device, memory: TableMemory
    ) -> None:
        """Plan, log the plan, and allocate. memory: what this process can use.

        UsageError and RunError as in `make_plan`, on all processes.
        """
        processes, smallest = current(), _smallest(memory)
        plan = decided_by_first(lambda: make_plan(architecture, settings, device.type, processes, smallest))
        self.placements = placements(plan, architecture, settings)
        if processes.is_first:
            for line in describe_placements(self.placements, processes.size):
                _log.info("%s", line)
        sharded = _allocated(plan, architecture, settings, device)
        self.local_tables = _local_tables(sharded, architecture, state_optimizer(settings))
        super().__init__(self.local_tables, architecture.feature_size, device)
        self._hidden = _Hidden(sharded)

    @property
    def sharded(self) -> ShardedEmbeddingBagCollection:
        """TorchRec's module."""
        return self._hidden.sharded

    def look_up(self, batch: Batch, pooling: PoolingWeights | None) -> Lookup:
        """Not possible alone: the step looks up the rows together with the other processes."""
        raise NotImplementedError

    def row_parameters(self) -> Sequence[RowParameter]:
        """Return none: TorchRec updates the rows."""
        return ()

    def sharded_tables(self) -> Sequence[ShardedTable]:
        """Return all tables."""
        return self.local_tables

    def flush(self) -> None:
        """Write rows that were updated in a cache on the GPU to the memory of the tables, on the host."""
        self.sharded.state_dict()  # flushes the caches

    def quantize(self, bits: int) -> None:
        """Not supported."""
        raise NotImplementedError

    def nbytes(self) -> int:
        """Return the memory of the rows that this process stores."""
        return sum(part.values.nbytes for table in self.local_tables for part in table.weight.parts)


def _smallest(memory: TableMemory) -> TableMemory:
    """Return the smallest memory of all processes; every process must call it."""
    of_all = values_of_all(memory)
    return TableMemory(min(each.device for each in of_all), min(each.host for each in of_all))


def _allocated(
    plan: EmbeddingModuleShardingPlan, architecture: Architecture, settings: Settings, device: torch.device
) -> ShardedEmbeddingBagCollection:
    """Return TorchRec's module with the parts of this process, uninitialized."""
    sharder = Sharder(
        fused_params={
            "optimizer": optimizer_type_to_emb_opt_type(FUSED_OPTIMIZERS[state_optimizer(settings)]),
            "learning_rate": settings.training.schedule.learning_rate,
            "eps": settings.training.adagrad_epsilon,
        }
    )
    env = ShardingEnv.from_process_group(torch.distributed.group.WORLD)
    with _nodes_of(current()):
        return sharder.shard(make_collection(architecture), plan, env, device, "")


@contextmanager
def _nodes_of(processes: Processes) -> Iterator[None]:
    """Make TorchRec group the processes by node.

    It reads the number of processes of a node from a variable that only torchrun sets, and keeps the groups of an
    earlier run.
    """
    before = os.environ.get(_LOCAL_SIZE)
    os.environ[_LOCAL_SIZE] = str(processes.local_size)
    comm._INTRA_PG = comm._CROSS_PG = None
    try:
        yield
    finally:
        del os.environ[_LOCAL_SIZE]
        if before is not None:
            os.environ[_LOCAL_SIZE] = before


@dataclass(frozen=True)
class _Hidden:
    """Keeps a module from being registered as a part of another."""

    sharded: ShardedEmbeddingBagCollection


def _local_tables(
    sharded: ShardedEmbeddingBagCollection, architecture: Architecture, optimizer: str
) -> list[ShardedTable]:
    """Return the parts of all tables and of the state that `optimizer` keeps for them, in place."""
    weights, states = sharded.state_dict(), sharded.fused_optimizer.state_dict()["state"]
    tables = []
    for number, rows in enumerate(architecture.rows_per_table):
        name, shape = f"embedding_bags.{table_name(number)}.weight", (rows, architecture.feature_size)
        sums = None
        if optimizer != "sgd":
            own = states.get(name, {}).get(f"{table_name(number)}.momentum1")  # None if it has no rows here
            parts = [] if own is None else _local_parts(own)
            sums = DividedTensor(shape[:1] if optimizer == "rwsadagrad" else shape, torch.float32, parts)
        tables.append(ShardedTable(DividedTensor(shape, torch.float32, _local_parts(weights[name])), sums))
    return tables


def _local_parts(tensor: ShardedTensor) -> list[Part]:
    """Return the parts of a table or of its optimizer's state that this process stores, in place."""
    return [Part(shard.tensor.detach(), tuple(shard.metadata.shard_offsets)) for shard in tensor.local_shards()]
