"""Embedding tables whose rows are divided among the processes. D embedding dimension."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed import comm
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import ShardingEnv

from mlperf.data.batch import Batch
from mlperf.distributed.agreement import decided_by_first, values_of_all
from mlperf.distributed.processes import Processes, current
from mlperf.engines.torchrec.features import table_name
from mlperf.engines.torchrec.placement import TableMemory, describe_placements
from mlperf.engines.torchrec.plan import Sharder, make_collection, make_plan, placements, state_optimizer
from mlperf.models.layers.embedding.interface import EmbeddingTables
from mlperf.models.layers.embedding.pooling import PoolingWeights
from mlperf.models.layers.embedding.rows import Lookup, RowParameter
from mlperf.models.layers.embedding.shards import Shard, ShardedTable
from mlperf.settings.model import Architecture
from mlperf.settings.settings import Settings
from mlperf.util.divided_tensor import DividedTensor, Part

_log = logging.getLogger(__name__)

_LOCAL_SIZE = "LOCAL_WORLD_SIZE"

OPTIMIZERS = {
    "sgd": EmbOptimType.EXACT_SGD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "rwsadagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
}


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
        rows, dimension = architecture.rows_per_table, architecture.feature_size
        processes, smallest = current(), _smallest(memory)
        plan = decided_by_first(lambda: make_plan(architecture, settings, device.type, processes, smallest))
        self.placements = placements(plan, architecture, settings)
        if processes.is_first:
            for line in describe_placements(self.placements, processes.size):
                _log.info("%s", line)
        training = settings.training
        sharder = Sharder(
            fused_params={
                "optimizer": OPTIMIZERS[state_optimizer(settings)],
                "learning_rate": training.schedule.learning_rate,
                "eps": training.adagrad_epsilon,
            }
        )
        # TorchRec keeps the groups of one node and between nodes for good; those of an earlier run are closed.
        comm._INTRA_PG = comm._CROSS_PG = None
        env = ShardingEnv.from_process_group(torch.distributed.group.WORLD)
        with _nodes_of(processes):
            sharded = sharder.shard(make_collection(architecture), plan, env, device, "")
        weights, kept = sharded.state_dict(), sharded.fused_optimizer.state_dict()["state"]
        self.local_tables = []
        for number, count in enumerate(rows):
            name = f"embedding_bags.{table_name(number)}.weight"
            sums = kept.get(name, {}).get(f"{table_name(number)}.momentum1")  # None if it has no rows here
            self.local_tables.append(
                ShardedTable(
                    count,
                    local_shards(weights[name]),
                    dimension,
                    _divided_sums(
                        state_optimizer(settings), count, dimension, [] if sums is None else local_parts(sums)
                    ),
                )
            )
        super().__init__(self.local_tables, dimension, device)
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
        return sum(shard.values.nbytes for table in self.local_tables for shard in table.shards)


def _smallest(memory: TableMemory) -> TableMemory:
    """Return the smallest memory of all processes; every process must call it."""
    of_all = values_of_all(memory)
    return TableMemory(min(each.device for each in of_all), min(each.host for each in of_all))


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


def _divided_sums(optimizer: str, rows: int, dimension: int, parts: Sequence[Part]) -> DividedTensor | None:
    """Return what the optimizer keeps for a table, None if it keeps nothing."""
    if optimizer == "sgd":
        return None
    shape = (rows,) if optimizer == "rwsadagrad" else (rows, dimension)
    return DividedTensor(shape, torch.float32, parts)


def local_shards(weight: ShardedTensor) -> list[Shard]:
    """Return the parts of a table [R, D] that this process stores."""
    return [Shard(part.values, part.offsets[0], part.offsets[1]) for part in local_parts(weight)]


def local_parts(tensor: ShardedTensor) -> list[Part]:
    """Return the parts of a table or of its optimizer's state that this process stores, in place."""
    return [Part(shard.tensor.detach(), tuple(shard.metadata.shard_offsets)) for shard in tensor.local_shards()]
