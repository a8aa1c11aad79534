"""Which process stores which rows of which table: TorchRec's planner, within what the run allows. D columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchrec import optim
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import (
    HardwareConfig,
    KernelConfig,
    ParameterConstraints,
    PlannerError,
    ShardingOption,
    TopologyFactory,
    TrainerConfig,
)
from torchrec.distributed.types import (
    CacheParams,
    EmbeddingModuleShardingPlan,
    ModuleSharder,
    ParameterSharding,
    ShardingType,
)
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from mlperf.distributed.processes import Processes
from mlperf.engines.torchrec.allowed import CACHED, ON_DEVICE, Allowed, allowed_for_tables, columns_of_part
from mlperf.engines.torchrec.features import table_name
from mlperf.engines.torchrec.placement import TableMemory, TablePlacement
from mlperf.optim.optimizer import Optimizer
from mlperf.registry import OPTIMIZERS, load
from mlperf.settings.model import Architecture
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError

# TorchRec's names of the kinds of --sharding and of the kernels.
_KINDS = {
    "table-wise": ShardingType.TABLE_WISE.value,
    "row-wise": ShardingType.ROW_WISE.value,
    "column-wise": ShardingType.COLUMN_WISE.value,
    "table-row-wise": ShardingType.TABLE_ROW_WISE.value,
    "grid": ShardingType.GRID_SHARD.value,
}
_KERNELS = {ON_DEVICE: "fused", CACHED: "fused_uvm_caching"}

# TorchRec's names of the optimizers. The planner derives the memory of their state from them.
FUSED_OPTIMIZERS = {"sgd": optim.SGD, "adagrad": optim.Adagrad, "rwsadagrad": optim.RowWiseAdagrad}

# Rates from which the planner estimates times, in bytes per ms: of one H100 with NVLink and 400 Gbit/s of network,
# and of a server's CPUs. mlperf/docs/distributed.md lists them.
_GB_PER_S = 10**6
HARDWARE = {
    "cuda": {
        "hbm_mem_bw": 3000 * _GB_PER_S,
        "hbm_to_ddr_mem_bw": 50 * _GB_PER_S,
        "intra_host_bw": 450 * _GB_PER_S,
        "inter_host_bw": 50 * _GB_PER_S,
    },
    "cpu": {"ddr_mem_bw": 50 * _GB_PER_S, "intra_host_bw": 10 * _GB_PER_S, "inter_host_bw": 5 * _GB_PER_S},
}

# Fractions of the rows that a cache on the GPU has, in the order in which they are tried.
CACHE_FRACTIONS = (0.2, 0.1, 0.05, 0.02, 0.01)


class Sharder(EmbeddingBagCollectionSharder):
    """Offers all kinds of sharding on a CPU too, where TorchRec's offers only some of those that work."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Return the kinds that can be chosen."""
        return list(_KINDS.values())

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """Return the kernels that can be chosen."""
        return list(_KERNELS.values()) if compute_device_type == "cuda" else [_KERNELS[ON_DEVICE]]


class _Enumerator(EmbeddingEnumerator):
    """Enumerates in a fixed order, in which the planner takes the first of equally good options.

    TorchRec's order of the kinds that a constraint allows is that of a set of strings, another in every run.
    """

    def enumerate(self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]) -> list[ShardingOption]:
        """Return the options of all tables."""
        assert isinstance(module, EmbeddingBagCollection)
        options: list[ShardingOption] = super().enumerate(module, sharders)
        names = {table.name: number for number, table in enumerate(module.embedding_bag_configs())}
        kinds, kernels = list(_KINDS.values()), list(_KERNELS.values())
        return sorted(
            options,
            key=lambda option: (
                names[option.name],
                kinds.index(option.sharding_type),
                kernels.index(option.compute_kernel),
            ),
        )


def make_collection(architecture: Architecture) -> EmbeddingBagCollection:
    """Return the tables as TorchRec describes them, without memory."""
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=table_name(number),
                feature_names=[table_name(number)],
                num_embeddings=rows,
                embedding_dim=architecture.feature_size,
            )
            for number, rows in enumerate(architecture.rows_per_table)
        ],
        device=torch.device("meta"),
    )


def make_plan(
    architecture: Architecture, settings: Settings, device: str, processes: Processes, memory: TableMemory
) -> EmbeddingModuleShardingPlan:
    """Return the plan. Needs no process group; it is for all processes.

    device: "cpu" or "cuda". memory: of each process. UsageError if a file of constraints does not fit the tables.
    RunError if the memory is not enough.
    """
    allowed = allowed_for_tables(settings, architecture.rows_per_table, architecture.feature_size, processes)
    for fraction in (None, *CACHE_FRACTIONS) if device == "cuda" else (None,):
        planner = _planner(architecture, settings, device, processes, memory, allowed, fraction)
        tables = make_collection(architecture)
        optimizer = FUSED_OPTIMIZERS[state_optimizer(settings)]
        optim.apply_optimizer_in_backward(optimizer, tables.parameters(), {"lr": 0.0})
        try:
            plan = planner.plan(tables, [Sharder()])
        except PlannerError:
            continue
        found = plan.get_plan_for_module("")
        assert isinstance(found, EmbeddingModuleShardingPlan)
        return found
    raise _too_large(architecture, settings, device, processes, memory)


def _planner(
    architecture: Architecture,
    settings: Settings,
    device: str,
    processes: Processes,
    memory: TableMemory,
    allowed: Sequence[Allowed],
    fraction: float | None,
) -> EmbeddingShardingPlanner:
    """Return a planner. fraction: of the rows in a cache; None: only tables whose constraint says so have one."""
    topology = _topology(device, processes, memory)
    batch_size = processes.largest_share(settings.data.batch_size)
    ids_per_table = architecture.ids_per_table or settings.data.ids_per_table(len(allowed))
    constraints = {
        table_name(number): _constraint(table, ids, architecture.feature_size, processes, fraction)
        for number, (table, ids) in enumerate(zip(allowed, ids_per_table, strict=True))
    }
    return EmbeddingShardingPlanner(
        topology=topology,
        batch_size=batch_size,
        enumerator=_Enumerator(topology, batch_size, constraints),
        constraints=constraints,
        storage_reservation=FixedPercentageStorageReservation(0.0),  # `memory` is what the rest of the run leaves
        stats=[],
        debug=False,
    )


def _topology(device: str, processes: Processes, memory: TableMemory) -> Topology:
    return TopologyFactory.create_topology(
        TrainerConfig(world_size=processes.size, local_world_size=processes.local_size),
        HardwareConfig(
            hbm_cap_bytes=memory.device, ddr_cap_bytes=memory.host, ssd_cap_bytes=0, **HARDWARE[device]
        ),
        KernelConfig(compute_device=device, use_hardware_based_bandwidth=True),
    )


def _constraint(
    table: Allowed, ids: int, dimension: int, processes: Processes, fraction: float | None
) -> ParameterConstraints:
    kernels = [table.kernel] if table.kernel is not None else [ON_DEVICE, *([CACHED] if fraction else [])]
    parts = processes.nodes if "grid" in table.kinds else processes.size
    return ParameterConstraints(
        sharding_types=[_KINDS[kind] for kind in table.kinds],
        compute_kernels=[_KERNELS[kernel] for kernel in kernels],
        min_partition=columns_of_part(dimension, parts),
        pooling_factors=[float(ids)],
        cache_params=CacheParams(load_factor=fraction or CACHE_FRACTIONS[0]) if CACHED in kernels else None,
    )


def state_optimizer(settings: Settings) -> str:
    """Return the --optimizer whose state is stored beside the tables: an evaluation needs none."""
    return "sgd" if settings.inference_only else settings.training.optimizer


def row_bytes(settings: Settings, columns: int) -> int:
    """Return the bytes of a row of float32 with its optimizer state."""
    optimizer: type[Optimizer] = load(OPTIMIZERS[state_optimizer(settings)])
    return 4 * (columns * (1 + optimizer.state_per_value) + optimizer.state_per_row)


def placements(
    plan: EmbeddingModuleShardingPlan, architecture: Architecture, settings: Settings
) -> list[TablePlacement]:
    """Return where the plan stores each table."""
    kinds = {value: name for name, value in _KINDS.items()}
    kernels = {value: name for name, value in _KERNELS.items()}
    found = []
    for number, rows in enumerate(architecture.rows_per_table):
        table = plan[table_name(number)]
        assert isinstance(table, ParameterSharding)
        assert table.sharding_spec is not None
        parts = [
            (shard.placement.rank(), shard.shard_sizes[0] * row_bytes(settings, shard.shard_sizes[1]))
            for shard in table.sharding_spec.shards
        ]
        kind, kernel = kinds[table.sharding_type], kernels[table.compute_kernel]
        found.append(TablePlacement(number, rows, kind, kernel, parts))
    return found


def _too_large(
    architecture: Architecture, settings: Settings, device: str, processes: Processes, memory: TableMemory
) -> RunError:
    sizes = [rows * row_bytes(settings, architecture.feature_size) for rows in architecture.rows_per_table]
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    available = f"{memory.host / 1e9:,.1f} GB"
    if device == "cuda":
        available = f"{memory.device / 1e9:,.1f} GB on its GPU and {available} in host memory"
    who = "this process" if processes.size == 1 else f"each of {processes.size} processes"
    return RunError(
        f"the tables with their optimizer state ({sum(sizes) / 1e9:,.1f} GB; table {largest}: "
        f"{sizes[largest] / 1e9:,.1f} GB) cannot be stored: {who} has {available} for them; more processes "
        "(--nproc-per-node, --nnodes), another --sharding, a smaller --max-ind-range, --arch-embedding-size or "
        "--mini-batch-size, or another --optimizer need less"
    )
