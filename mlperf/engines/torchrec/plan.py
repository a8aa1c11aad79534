"""Which process stores which rows of which table: TorchRec's planner, within what the run allows."""

from __future__ import annotations

import torch
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from mlperf.distributed.processes import Processes
from mlperf.settings.settings import Settings

# --sharding: TorchRec's names have underscores. Those that compute the same as one process.
_TYPES = {"table-wise": ShardingType.TABLE_WISE, "row-wise": ShardingType.ROW_WISE}


class Sharder(EmbeddingBagCollectionSharder):
    """Offers all kinds of sharding on a CPU too, where TorchRec's offers only some of those that work."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Return the kinds that can be chosen."""
        return [kind.value for kind in _TYPES.values()]


def make_plan(
    tables: EmbeddingBagCollection,
    sharder: EmbeddingBagCollectionSharder,
    settings: Settings,
    device: torch.device,
    processes: Processes,
) -> EmbeddingModuleShardingPlan:
    """Return the plan, equal on all processes."""
    topology = Topology(
        world_size=processes.size, local_world_size=processes.local_size, compute_device=device.type
    )
    planner = EmbeddingShardingPlanner(
        topology=topology,
        batch_size=processes.largest_share(settings.data.batch_size),
        constraints=_constraints(tables, settings, processes),
    )
    plan = planner.collective_plan(tables, [sharder])
    found = plan.get_plan_for_module("")
    assert isinstance(found, EmbeddingModuleShardingPlan)
    return found


def _constraints(
    tables: EmbeddingBagCollection, settings: Settings, processes: Processes
) -> dict[str, ParameterConstraints]:
    sharding = settings.processes.sharding
    wanted = "table-wise" if sharding == "auto" else sharding
    constraints = {}
    for table in tables.embedding_bag_configs():
        # FBGEMM's backward pass on a CPU fails for shards of 0 rows: four rows on three processes are 2, 2 and 0.
        rows, largest = table.num_embeddings, processes.largest_share(table.num_embeddings)
        kind = wanted if (processes.size - 1) * largest < rows else "table-wise"
        constraints[table.name] = ParameterConstraints(
            sharding_types=[_TYPES[kind].value], compute_kernels=["fused"]
        )
    return constraints
