"""Logs, descriptions and packages of runs of several processes and nodes, verified by the official checkers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from package_maker import SYSTEM, make, write_system_file
from program import Finished, official_package_check, read_events

from mlperf.benchmarks import BENCHMARKS, Benchmark, Edition, default_edition, editions_of
from mlperf.compliance.official import check_compliance
from mlperf.data.batch import Batch
from mlperf.distributed.processes import Processes, running_as
from mlperf.reporting.compliance_log import ComplianceLog
from mlperf.settings.from_flags import parse
from mlperf.submission.check import check_log
from mlperf.training.events import Outcome, Position, RunStart
from mlperf.training.state import TrainingState

EIGHT_NODES = Processes(0, 64, 0, 8)
EACH = [(benchmark, edition) for benchmark in BENCHMARKS.values() for edition in editions_of(benchmark)]


@dataclass(frozen=True)
class Split:
    """A split of the full data, of which only the size matters."""

    samples: int
    batches_per_epoch: int = 64014

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        raise NotImplementedError


def write_log(path: Path, edition: Edition, processes: Processes, seed: int = 1) -> Path:
    """Write the log of a run of `processes` with a GPU each that reaches the target on the full data."""
    benchmark, batches = edition.benchmark, 64014
    flags = [*benchmark.flags, "--data-generation=dataset", "--raw-data-file=day", "--mini-batch-size=65536"]
    flags += ["--learning-rate=0.004", "--mlperf-logging", f"--mlperf-edition={edition.name}", "--use-gpu"]
    flags += [f"--numpy-rand-seed={seed}", "--mlperf-submitter=Ours", "--mlperf-platform=8xbox"]
    with running_as(processes):
        log = ComplianceLog(parse([*flags, f"--mlperf-log-file={path}"]))
        log.init_stop()
        log.run_start(RunStart(None, "autograd"))
        log.data_opened(Split(benchmark.data.train_samples), Split(benchmark.data.eval_samples))
        log.epoch_start(Position(0, 0, batches))
        for step, auc in ((3_200, 0.79), (6_400, 0.79 + seed / 1e6), (60_815, benchmark.auc_target)):
            position, metrics = Position(0, step, batches), replace(TrainingState().best, auc=auc)
            log.evaluation_start(position)
            log.evaluation_stop(position, metrics, metrics, improved=True)
        log.epoch_stop(position)
        log.run_stop(position, Outcome.SUCCESS)
    return path


@pytest.mark.parametrize(("benchmark", "edition"), EACH, ids=lambda value: value.name)
def test_checkers_accept_the_log_of_eight_nodes(benchmark: Benchmark, edition: Edition, tmp_path: Path) -> None:
    log = write_log(tmp_path / "x.log", edition, EIGHT_NODES)
    values = {event["key"]: event["value"] for event in read_events(log)}
    counts = [values[name] for name in ("number_of_nodes", "accelerators_per_node", "processes_per_node")]
    assert counts == [8, 8, 8]
    assert values["global_batch_size"] == 65536
    assert check_compliance(log, edition).passed
    assert not any(check.warnings for check in check_log(log, edition).checks)


def test_log_of_one_process_has_no_keys_of_several(tmp_path: Path) -> None:
    log = write_log(tmp_path / "x.log", default_edition(BENCHMARKS["dlrm"]), Processes())
    assert not [
        event["key"] for event in read_events(log) if "_per_node" in event["key"] or "nodes" in event["key"]
    ]


def submit(folder: Path, edition: Edition, *flags: str, others: Processes = EIGHT_NODES) -> Finished:
    """Make a package of runs of eight nodes; the last run is one of `others`."""
    processes = [EIGHT_NODES] * (edition.runs - 1) + [others]
    logs = [write_log(folder / f"{seed}.log", edition, each, seed) for seed, each in enumerate(processes, 1)]
    file = write_system_file(folder / "system")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in content.items() if "_nodes" not in name}))
    return make(
        *("--submitter=Ours", "--system=box", f"--edition={edition.name}", f"--system-file={file}"),
        *flags,
        "--logs",
        *logs,
        cwd=folder,
    )


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda value: value.name)
def test_package_describes_the_nodes_that_the_logs_state(benchmark: Benchmark, tmp_path: Path) -> None:
    edition = default_edition(benchmark)
    run = submit(tmp_path, edition, "--set=accelerators_per_node=8", "--rcp-bypass=an example")
    assert run.status == 0, run.stdout + run.stderr
    package = tmp_path / "submission" / "Ours"
    description = json.loads((package / "systems" / "box.json").read_text())
    assert (description["number_of_nodes"], description["accelerators_per_node"]) == ("8", "8")
    steps = (package / "benchmarks" / benchmark.name / "implementations" / "pytorch" / "README.md").read_text()
    assert f"NPROC=8 NNODES=8 NODE_RANK=$NODE_RANK MASTER_ADDR=$MASTER_ADDR BENCHMARK={benchmark.name}" in steps
    assert "It is started on each node." in steps
    assert "FOUND NO ERRORS" in official_package_check(package, edition.name, tmp_path)


def test_description_that_contradicts_the_logs_is_reported(tmp_path: Path) -> None:
    edition = default_edition(BENCHMARKS["dlrm"])
    contradicting = ("--set=number_of_nodes=1", "--set=accelerators_per_node=4", "--rcp-bypass=an example")
    run = submit(tmp_path, edition, *contradicting)
    for text in (
        "number_of_nodes is 8, number_of_nodes in",
        "accelerators_per_node is 8, accelerators_per_node in",
    ):
        assert text in run.stdout


def test_runs_of_different_numbers_of_processes_are_no_result(tmp_path: Path) -> None:
    edition = default_edition(BENCHMARKS["dlrm"])
    run = submit(tmp_path, edition, "--rcp-bypass=an example", others=Processes(0, 8, 0, 1))
    assert run.status == 1
    assert "processes_per_node is 1, not 8 as in" in run.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NNODES": "2"}, "NNODES=2 in the environment: this program runs on one machine; make the runs"),
        ({"NPROC": "two"}, "NPROC=two in the environment: must be a whole number from 1 on"),
    ],
)
def test_processes_that_the_program_cannot_start_are_refused(
    variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    run = make("--submitter=Ours", "--system=box", *SYSTEM, cwd=tmp_path, **variables)
    assert run.status == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
