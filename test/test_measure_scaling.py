"""bench/measure_scaling.py: what it prints, and the formula of the bytes that a step sends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bench_modules import bench_module, printed
from processes import in_processes, needs_torchrec

from mlperf.models.dlrm import DLRM_Net
from mlperf.settings.from_flags import parse


@in_processes
@needs_torchrec
def test_two_processes_are_timed_and_send_what_the_formula_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--reduced", "--shapes=Kaggle-128", "--sharding=row-wise", "--cores=2")
    _, _, title, *lines = printed("measure_scaling", monkeypatch, capsys, *flags)
    assert title == "Kaggle-128 reduced, tables of at most 1,000 rows, batch 128"
    names = [line[2:44].strip() for line in lines]
    assert names == ["1 process, cpu", "1 process, torchrec", "2 processes, torchrec, row-wise"]
    columns = [line[44:].replace(",", "").split() for line in lines]
    assert all(float(step) > 0 for step, *_ in columns)
    assert float(columns[0][2]) == 1
    waits, alone, sent, formula = columns[2][3:]
    assert 0 <= int(waits.rstrip("%")) <= 100
    assert int(alone.rstrip("%")) > 0
    assert float(sent) == pytest.approx(float(formula), rel=0.02)


def network(kind: str, parts: int) -> object:
    """Return two tables of 3 ids and 1 id, of dimension 4, and 100 weights."""
    return bench_module("scaling_traffic").Network((3, 1), (kind,) * 2, (parts,) * 2, 4, 100)


@pytest.mark.parametrize(
    ("kind", "parts", "ids", "rows", "gradients"),
    [
        # 4 processes: of 4 ids of 8 bytes and 2 numbers of 4 bytes, and of 2 vectors of 16 bytes, 3/4 are sent
        ("table-wise", 1, 0.75 * (32 + 8), 0.75 * 32, 0.75 * 32),
        # the numbers to 3 other processes, and from each process a part of each sum
        ("row-wise", 4, 0.75 * 32 + 3 * 8, 2 * 3 * 32, 3 * 32),
        # ids and numbers to the 2 processes that have columns of the table
        ("column-wise", 2, 0.75 * 2 * (32 + 8), 0.75 * 32, 0.75 * 32),
    ],
)
def test_bytes_of_each_kind_of_sharding(kind: str, parts: int, ids: float, rows: float, gradients: float) -> None:
    traffic = bench_module("scaling_traffic")
    found = traffic.sent_bytes(network(kind, parts), 4, 50, reduce_factor=2)
    assert found == pytest.approx(
        {"ids": ids, "rows": rows, "row gradients": gradients, "weight gradients": 2 * 3 * 400 / 50}
    )


def test_one_process_sends_nothing() -> None:
    traffic = bench_module("scaling_traffic")
    assert set(traffic.sent_bytes(network("table-wise", 1), 1, 50, reduce_factor=1).values()) == {0}


@pytest.mark.parametrize("name", ["MLPerf-2048", "Kaggle-128", "DCNv2-2048"])
def test_weights_of_a_shape_are_those_of_the_model(name: str) -> None:
    shape = bench_module("training_shapes").shapes_named(name, use_gpu=False)[0].reduced()
    settings = parse([*shape.flags, "--data-generation=dataset", "--processed-data-file=x"])
    model = DLRM_Net(replace(settings.model.architecture, rows_per_table=shape.tables), torch.device("cpu"))
    weights = sum(parameter.numel() for parameter in model.dense_parameters())
    assert bench_module("scaling_traffic").dense_weights(shape) == weights


def test_projection_to_one_gpu_is_what_was_measured() -> None:
    projection = bench_module("scaling_projection")
    for measured, milliseconds in ((projection.DLRM, 3.24), (projection.DCNV2, 22.4)):
        found = projection.projection(measured, 1, 65536, 1)
        assert (found.rows, found.ids, found.weights) == (0, 0, 0)
        assert 1e3 * found.most == pytest.approx(milliseconds)
    assert 1e3 * projection.projection(projection.DLRM, 1, 2048, 1).most == pytest.approx(0.293)


def test_projection_counts_the_busiest_gpu_and_the_slower_link() -> None:
    projection = bench_module("scaling_projection")
    vector = 128 * 4
    # In a node of 8: 4 of the 26 tables on a GPU, whose rows go to the 7 others, and their gradients come back.
    in_node = projection.projection(projection.DLRM, 8, 8000, 1)
    assert in_node.rows == pytest.approx(2 * 4 * vector * 1000 * 7 / 450e9)
    # On 64: one table on each of 26 GPUs. 56 of the 63 others are in other nodes.
    between = projection.projection(projection.DLRM, 64, 64000, 1)
    assert between.rows == pytest.approx(2 * vector * 1000 * 56 / 50e9)
    # 104 quarters of tables: 2 of them on the busiest GPU
    assert projection.projection(projection.DLRM, 64, 64000, 4).rows == pytest.approx(between.rows / 2)
    weights = 4 * bench_module("scaling_traffic").dense_weights(projection.DLRM.shape)
    assert in_node.weights == pytest.approx(2 * weights * 7 / 8 / 450e9)
    assert between.weights == pytest.approx(in_node.weights + 2 * weights * 7 / 8 / 8 / 50e9)


def test_projection_is_printed_for_both_benchmarks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header, _, *rows = printed("scaling_projection", monkeypatch, capsys)
    assert header.startswith("| benchmark | GPUs |")
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| `{name}`", gpus] for name in ("dlrm", "dlrm_dcnv2") for gpus in ("8", "64", "64")
    ]
