"""bench/measure_training.py: what it measures, in which order, and within which time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bench_modules import bench_module, printed
from small_models import make_bag_batch, make_batch

from mlperf.settings.model import Architecture

CASES = [
    *("MLPerf-full-65536 bf16", "MLPerf-full-65536 tf32", "MLPerf-65536 bf16", "MLPerf-65536 tf32"),
    *("MLPerf-2048 bf16", "MLPerf-2048 tf32", "Kaggle-128 bf16", "Kaggle-128 tf32"),
    *("MLPerf-full-65536 fp32", "MLPerf-65536 fp32", "MLPerf-2048 fp32", "Kaggle-128 fp32"),
]


def measure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    """Return the lines that the script prints."""
    return printed("measure_training", monkeypatch, capsys, *flags)


def names(lines: list[str]) -> list[str]:
    """Return the beginning of each row of a contender."""
    return [line[2:44].strip() for line in lines if line.startswith("  ") and line.strip()]


@pytest.mark.parametrize(
    ("flags", "measured"),
    [
        ([], ["plain", "this project, batch in memory", "this project, from the file"]),
        (
            ["--optimizer=rwsadagrad", "--embedding-precision=bf16"],
            ["this project, batch in memory", "this project, from the file"],
        ),
    ],
)
def test_every_contender_is_timed_or_the_reason_is_given(
    flags: list[str], measured: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = measure(
        monkeypatch, capsys, "--reduced", "--shapes=Kaggle-128", "--precision=bf16", "--evaluate=1000", *flags
    )
    assert "Kaggle-128" in lines[2]
    found = names(lines[2:])
    assert {"floor", "plain", "torchrec", *measured} <= set(found)
    assert found[-1] == "evaluation of 1,000 samples"
    for line in lines[3:-2]:
        name, rest = line[2:44].strip(), line[44:]
        is_measured = not rest.startswith("not measured: ")
        if name != "torchrec":  # where it is installed, it may be measured
            assert is_measured is (name in ("floor", "initialization of the tables", *measured))
        if is_measured:
            assert float(rest.split()[0]) > 0
    assert not any("left out" in line for line in lines)


def test_what_matters_most_is_measured_first_and_the_rest_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = measure(
        monkeypatch,
        capsys,
        *("--reduced", "--shapes=Kaggle-128", "--precision=fp32,bf16", "--evaluate=1000", "--minutes=0.0001"),
    )
    assert lines[2].startswith("Kaggle-128 reduced, tables of at most 1,000 rows, bf16")
    assert names(lines)[-1] == "initialization of the tables"
    left_out = "Kaggle-128 reduced bf16 evaluation; Kaggle-128 reduced fp32"
    assert lines[-1] == f"left out for lack of time: {left_out}"


def test_full_tables_come_first_and_fp32_last() -> None:
    shapes = bench_module("training_shapes")
    on_gpu = shapes.in_order(shapes.shapes_named(None, use_gpu=True), shapes.precisions_named(None, use_gpu=True))
    assert [f"{shape.name} {precision}" for shape, precision in on_gpu] == CASES
    chosen = shapes.in_order(
        shapes.shapes_named("Kaggle-128,MLPerf-65536", use_gpu=False),
        shapes.precisions_named("fp32, bf16", use_gpu=False),
    )
    assert [(shape.batch_size, precision) for shape, precision in chosen] == [
        *((65536, "bf16"), (128, "bf16"), (65536, "fp32"), (128, "fp32")),
    ]


def test_several_ids_per_table_are_measured_with_the_programs_that_have_an_equal_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = measure(
        monkeypatch, capsys, *("--reduced", "--shapes=DCNv2-2048", "--precision=bf16", "--optimizer=adagrad")
    )
    assert lines[2].startswith("DCNv2-2048 reduced, tables of at most 1,000 rows, bf16")
    measured = {line[2:44].strip() for line in lines[3:] if "not measured" not in line}
    assert {"floor", "plain", "this project, batch in memory", "this project, from the file"} <= measured


def test_lower_bound_counts_a_row_that_several_ids_read_once_in_the_update() -> None:
    baselines = bench_module("training_baselines")
    batch = make_bag_batch(50, (3, 1), (4, 2), np.random.default_rng(1))
    assert baselines.rows_updated(batch) == 3 + 1
    assert baselines.rows_updated(make_batch(50, (3, 1), np.random.default_rng(1))) == 100


def test_file_has_no_more_rows_than_can_be_read() -> None:
    script = bench_module("measure_training")
    for shape in bench_module("training_shapes").SHAPES:
        for device in ("cpu", "cuda"):
            plan = script.Plan(torch.device(device), "sgd", "fp32", rounds=30, evaluated=0, compile=True)
            rows = script.rows_of_file(shape, plan)
            assert rows % shape.batch_size == 0
            assert 2 * shape.batch_size <= rows <= script.MAX_FILE_BYTES // 160
            few = script.rows_of_file(shape, replace(plan, rounds=1))
            assert few <= 2 * script.STEPS_PER_ROUND[device] * shape.batch_size


def test_program_that_does_not_fit_in_memory_is_not_measured() -> None:
    contenders = bench_module("training_contenders")
    architecture = Architecture((4, 10**9), 16384, (13, 16384), (1,))
    batch = make_batch(8, (4, 4), np.random.default_rng(2))
    programs = contenders.OtherPrograms(
        architecture, batch, "fp32", torch.device("cpu"), "sgd", with_compile=False
    )
    steps, missing = programs.make()
    assert steps == {}
    assert missing["plain"].startswith("the tables of plain: needs 65536.0 GB of memory")
    assert set(missing) == {"plain", "torchrec"}


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("interaction", ["dot", "dcn"])
def test_first_losses_with_torchrec_are_those_of_plain_pytorch(
    interaction: str, precision: str, optimizer: str
) -> None:
    torchrec, baselines = bench_module("torchrec_step"), bench_module("training_baselines")
    if reason := torchrec.unavailable():
        pytest.skip(reason)
    torch.manual_seed(1)
    architecture = Architecture((4, 300, 50), 8, (13, 16, 8), (20, 1), interaction_op=interaction, cross_rank=4)
    rows, stream = architecture.rows_per_table, np.random.default_rng(2)
    batch = make_batch(64, rows, stream) if interaction == "dot" else make_bag_batch(64, rows, (3, 1, 5), stream)
    arguments = (architecture, batch, precision, torch.device("cpu"), 0.05 if interaction == "dot" else 0.01)
    plain = baselines.PlainStep(*arguments, optimizer=optimizer)
    other = torchrec.TorchRecStep(*arguments, optimizer=optimizer)
    other.copy_weights(plain.model)
    losses = [(float(plain()), float(other())) for _ in range(8)]
    assert losses[0][0] > losses[-1][0] + 1e-3
    for expected, found in losses:
        assert found == pytest.approx(expected, rel=1e-6 if precision == "fp32" else 1e-3)
