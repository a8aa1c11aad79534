"""Which processes store which tables: plans of both benchmarks as text, without processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from processes import needs_torchrec

from mlperf.benchmarks import DLRM, DLRM_DCNV2
from mlperf.benchmarks.benchmark import Benchmark
from mlperf.cli.train import parse
from mlperf.distributed.processes import Processes
from mlperf.engines.torchrec.placement import (
    TableMemory,
    TablePlacement,
    bytes_by_rank,
    describe_placements,
    shown_ranks,
)
from mlperf.settings.model import Architecture
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError

pytestmark = needs_torchrec

GB = 10**9
GPU, CPU = TableMemory(75 * GB, 400 * GB), TableMemory(0, 400 * GB)
LARGE = [0, 9, 19, 20, 21]


def settings_of(benchmark: Benchmark, *flags: str) -> tuple[Settings, Architecture]:
    network, data = benchmark.network, benchmark.data
    ids = [] if data.ids_per_table is None else [f"--multi-hot-sizes={'-'.join(map(str, data.ids_per_table))}"]
    settings = parse(
        [
            *("--data-generation=dataset", "--processed-data-file=x", "--mini-batch-size=65536"),
            *("--arch-sparse-feature-size=128", "--arch-mlp-bot=13-512-256-128"),
            *(f"--arch-interaction-op={network.interaction}", f"--optimizer={benchmark.optimizer}", *ids, *flags),
        ]
    )
    return settings, replace(settings.model.architecture, rows_per_table=data.table_rows)


def plan(benchmark: Benchmark, processes: Processes, memory: TableMemory, *flags: str) -> Sequence[TablePlacement]:
    from mlperf.engines.torchrec.plan import make_plan, placements

    settings, architecture = settings_of(benchmark, *flags)
    device = "cuda" if memory.device else "cpu"
    return placements(make_plan(architecture, settings, device, processes, memory), architecture, settings)


def kinds(placed: Sequence[TablePlacement]) -> dict[str, list[int]]:
    """Return the numbers of the tables of each kind of sharding."""
    found: dict[str, list[int]] = {}
    for placement in placed:
        found.setdefault(placement.kind, []).append(placement.number)
    return found


def test_plan_of_the_benchmark_on_eight_gpus_as_text() -> None:
    placed = plan(DLRM_DCNV2, Processes(0, 8, 0, 8), GPU)
    header, *tables, total = describe_placements(placed, 8)
    assert header == "table        rows  sharding    ranks        MB"
    assert len(tables) == 26
    assert tables[5].split() == ["5", "3", "table-wise", tables[5].split()[3], "0.0"]
    # 40 million rows of 128 values and as many sums of squares, 4 bytes each.
    assert tables[20] == "   20  40,000,000  row-wise    0-7    40,960.0"
    assert len({len(line) for line in (header, *tables)}) == 1
    assert total.startswith("tables and their optimizer state, MB of each rank: ")
    assert len(total.split("rank: ")[1].split(";")[0].split()) == 8
    assert max(bytes_by_rank(placed, 8)) < GPU.device


@pytest.mark.parametrize(("size", "nodes"), [(1, 1), (2, 1), (8, 1), (64, 8)])
@pytest.mark.parametrize("benchmark", [DLRM, DLRM_DCNV2], ids=lambda benchmark: benchmark.name)
def test_every_row_is_placed_once_within_the_memory(benchmark: Benchmark, size: int, nodes: int) -> None:
    placed = plan(benchmark, Processes(0, size, 0, size // nodes), TableMemory(240 * GB, 400 * GB))
    assert [placement.number for placement in placed] == list(range(26))
    state = 2 if benchmark.optimizer == "adagrad" else 1
    assert [placement.size for placement in placed] == [
        rows * 128 * 4 * state for rows in benchmark.data.table_rows
    ]
    assert max(bytes_by_rank(placed, size)) <= 240 * GB
    assert {part[0] for placement in placed for part in placement.parts} <= set(range(size))
    assert set(kinds(placed)) <= {"table-wise", "row-wise", "table-row-wise"}
    if size == 1:
        assert set(kinds(placed)) == {"table-wise"}


def test_large_tables_are_divided_among_the_processes_of_a_node_when_there_are_many() -> None:
    placed = plan(DLRM_DCNV2, Processes(0, 64, 0, 8), GPU)
    assert set(kinds(placed)["table-row-wise"]) <= set(LARGE)
    for number in kinds(placed)["table-row-wise"]:
        first, *_, last = placed[number].ranks
        assert (first % 8, last) == (0, first + 7)


def test_first_of_equal_kinds_is_chosen_in_every_run(tmp_path: Path) -> None:
    """All kinds that cut rows are equal on one node. TorchRec enumerates them by the hashes of their names."""
    path = tmp_path / "constraints.json"
    path.write_text('{"all": ["grid", "table-row-wise", "row-wise"]}')
    placed = plan(DLRM, Processes(0, 8, 0, 8), CPU, f"--sharding-constraints={path}")
    assert set(kinds(placed)) == {"row-wise", "table-wise"}


def test_optimizer_state_counts_but_not_in_an_evaluation() -> None:
    sizes = {
        flags: plan(DLRM, Processes(), CPU, *flags.split())[0].size
        for flags in ("--optimizer=sgd", "--optimizer=rwsadagrad", "--optimizer=adagrad")
    }
    rows = DLRM.data.table_rows[0]
    assert list(sizes.values()) == [rows * 4 * values for values in (128, 129, 256)]
    evaluation = plan(DLRM, Processes(), CPU, "--optimizer=adagrad", "--inference-only")
    assert evaluation[0].size == rows * 4 * 128


@pytest.mark.parametrize(
    ("kind", "processes", "impossible"),
    [
        ("row-wise", Processes(0, 8, 0, 8), [5, 12, 16, 18]),  # of 3, 10, 4 and 14 rows: 14 are 7 times 2, and 0
        ("column-wise", Processes(0, 8, 0, 8), []),
        ("table-row-wise", Processes(0, 8, 0, 4), [5]),
        ("grid", Processes(0, 8, 0, 4), [5]),
    ],
)
def test_tables_of_which_a_process_would_get_an_empty_part_are_table_wise(
    kind: str, processes: Processes, impossible: list[int]
) -> None:
    placed = plan(DLRM, processes, CPU, f"--sharding={kind}")
    others = [number for number in range(26) if number not in impossible]
    assert kinds(placed) == {kind: others} | ({"table-wise": impossible} if impossible else {})
    for placement in placed:
        assert min(size for _, size in placement.parts) > 0


def test_tables_larger_than_the_gpu_are_in_host_memory_with_a_cache() -> None:
    placed = plan(DLRM_DCNV2, Processes(), GPU)
    cached = [placement.number for placement in placed if placement.kernel == "fused-uvm-caching"]
    assert cached == LARGE
    *_, last = describe_placements(placed, 1)
    assert last == (
        "tables 0, 9, 19, 20, 21 (204,800.0 MB) are in host memory with a cache on the GPU, which is slower"
    )


def test_file_of_constraints_overrides_single_tables(tmp_path: Path) -> None:
    path = tmp_path / "constraints.json"
    path.write_text('{"0": "row-wise", "9": {"sharding": "table-wise", "kernel": "fused"}, "all": "row-wise"}')
    placed = plan(DLRM, Processes(0, 2, 0, 2), CPU, f"--sharding-constraints={path}")
    assert placed[0].ranks == [0, 1]
    assert len(placed[9].ranks) == 1
    assert placed[1].kind == "row-wise"


@pytest.mark.parametrize(
    ("memory", "flags", "words"),
    [
        (TableMemory(0, 30 * GB), (), r"each of 2 processes has 30\.0 GB for them"),
        (TableMemory(20 * GB, 30 * GB), (), r"20\.0 GB on its GPU and 30\.0 GB in host memory"),
        (TableMemory(0, 15 * GB), ("--sharding=table-wise",), r"table 19: 20\.5 GB"),
    ],
)
def test_too_little_memory_is_one_line_with_sizes_and_flags(
    memory: TableMemory, flags: tuple[str, ...], words: str
) -> None:
    with pytest.raises(RunError, match=words) as caught:
        plan(DLRM, Processes(0, 2, 0, 2), memory, *flags)
    assert "\n" not in str(caught.value)
    assert "96.1 GB" in str(caught.value)
    assert "--sharding" in str(caught.value)


def test_ranks_are_shown_as_ranges() -> None:
    assert shown_ranks([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
