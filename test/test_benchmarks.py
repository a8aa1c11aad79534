"""What a benchmark fixes, and how shell scripts ask for it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from program import ROOT

from mlperf.benchmarks import BENCHMARKS, DLRM, DLRM_DCNV2, EDITIONS, WORKLOADS, Workload
from mlperf.benchmarks.__main__ import main
from mlperf.data.schema import CRITEO
from mlperf.settings.from_flags import parse, parse_preparation
from mlperf.settings.training import EPSILON, ScheduleSettings, TrainingSettings


@pytest.mark.parametrize("name", WORKLOADS)
def test_trainer_accepts_the_flags_of_every_workload(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--flags"]) == 0
    settings = parse([*capsys.readouterr().out.splitlines(), "--data-generation=dataset", "--raw-data-file=day"])
    network = WORKLOADS[name].network
    assert settings.model.architecture.mlp_bot == network.bottom_mlp
    assert settings.model.architecture.mlp_top == network.top_mlp
    assert settings.model.architecture.dimension == network.embedding_dimension
    assert settings.model.architecture.interaction_op == network.interaction
    assert settings.model.architecture.cross_layers == (network.cross_layers or 3)
    assert settings.model.architecture.cross_rank == (network.cross_rank or 512)
    assert settings.data.multi_hot.sizes == WORKLOADS[name].data.ids_per_table
    if name in BENCHMARKS:
        assert settings.training.auc_threshold == BENCHMARKS[name].auc_target
        assert settings.training.optimizer == BENCHMARKS[name].optimizer
        assert settings.training.adagrad_epsilon == (BENCHMARKS[name].adagrad_epsilon or EPSILON)
        assert settings.edition.benchmark is BENCHMARKS[name]


def test_editions_of_a_benchmark_are_printed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlrm", "--editions"]) == 0
    assert capsys.readouterr().out.split() == ["0.7.0", "1.0.0", "1.1.0", "2.0.0", "2.1.0"]
    assert main(["dlrm_dcnv2", "--editions"]) == 0
    assert capsys.readouterr().out.split() == ["3.0.0", "3.1.0", "4.0.0", "4.1.0", "5.0.0", "5.1.0", "6.0.0"]
    assert main(["kaggle", "--editions"]) == 0
    assert capsys.readouterr().out == ""


def test_default_edition_is_the_latest_of_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dlrm", "dlrm_dcnv2", "kaggle"):
        assert main([name, "--default-edition"]) == 0
    assert capsys.readouterr().out.split() == ["2.1.0", "6.0.0"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_preparation_accepts_the_data_flags_of_every_workload(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--data-flags"]) == 0
    flags = [*capsys.readouterr().out.splitlines(), "--raw-data-file=day", "--processed-data-file=data"]
    assert parse_preparation(flags, "prepare", None).data_set == WORKLOADS[name].data.name


@pytest.mark.parametrize(
    ("name", "flags"), [("dlrm", ""), ("dlrm_dcnv2", "--mlperf-division=open\n"), ("kaggle", "")]
)
def test_sample_belongs_to_the_open_division_if_closed_fixes_the_evaluation_samples(
    name: str, flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--sample-flags"]) == 0
    assert capsys.readouterr().out == flags


def test_table_rows_are_printed_as_the_trainer_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dlrm_dcnv2", "--table-rows"]) == 0
    (rows,) = capsys.readouterr().out.splitlines()
    settings = parse([f"--arch-embedding-size={rows}"])
    assert settings.model.architecture.rows_per_table == DLRM_DCNV2.data.table_rows
    assert main(["terabyte_10m", "--table-rows"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_published_tables_have_the_layout_of_a_row(workload: Workload) -> None:
    assert len(workload.data.table_rows) in (0, CRITEO.tables)
    assert workload.network.bottom_mlp[0] == CRITEO.dense_features


def test_published_figures_of_the_benchmark_add_up() -> None:
    assert sum(DLRM.data.table_rows) == 187_767_399  # the vocabulary that published logs print
    assert sum(DLRM_DCNV2.data.table_rows) == 204_184_588
    assert sum(DLRM_DCNV2.data.ids_per_table or ()) == 214
    for data in (DLRM.data, DLRM_DCNV2.data):
        assert data.eval_samples + data.held_out_samples == 178_274_637  # the rows of day 23


def test_every_logged_hyperparameter_is_a_setting_or_a_value() -> None:
    settings = {field.name for field in fields(TrainingSettings)}
    settings |= {f"schedule.{field.name}" for field in fields(ScheduleSettings)}
    for edition in EDITIONS.values():
        for logged in edition.benchmark.hyperparameters:
            assert (logged.setting in settings) != (logged.value is not None)


@pytest.mark.parametrize("module", ["benchmarks", "cli.check", "cli.submit", "cli.check_flags"])
def test_programs_that_read_logs_or_flags_import_no_torch(module: str) -> None:
    program = f"import sys, mlperf.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
