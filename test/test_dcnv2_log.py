"""The compliance log of DLRM-DCNv2, verified by the official checkers of editions 3.0.0 to 6.0.0."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from easy_data import write_easy_data
from program import read_events as events

import mlperf
from mlperf.benchmarks import DLRM_DCNV2, Edition, editions_of
from mlperf.compliance.official import CheckerOutput, check_compliance
from mlperf.data.batch import Batch
from mlperf.evaluation.metrics import Metrics
from mlperf.reporting.compliance_log import ComplianceLog
from mlperf.settings.from_flags import parse
from mlperf.submission.check import check_log
from mlperf.training.events import Outcome, Position, RunStart
from mlperf.training.state import TrainingState

EDITIONS = editions_of(DLRM_DCNV2)
each_edition = pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
BATCH, BATCHES = 65536, 64014
# Groups of which the rules require one, besides the keys that they require on their own.
ALTERNATIVES = [{"epoch_start", "block_start"}, {"epoch_stop", "block_stop"}, {"eval_start", "block_start"}]
ALTERNATIVES += [{"eval_stop", "block_stop"}]


@dataclass(frozen=True)
class Split:
    """A split of the full data, of which only the size matters."""

    samples: int

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.samples // BATCH)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        raise NotImplementedError


def log_on_full_data(folder: Path, edition: Edition) -> Path:
    """Write the log of a run on the full data that reaches the target at its third evaluation."""
    path = folder / f"{edition.name}.log"
    flags = (*DLRM_DCNV2.flags, "--data-generation=dataset", "--raw-data-file=day", f"--mini-batch-size={BATCH}")
    flags += ("--learning-rate=0.004", "--mlperf-logging", f"--mlperf-edition={edition.name}")
    settings = parse([*flags, f"--mlperf-log-file={path}"])
    data = DLRM_DCNV2.data
    interval = settings.training.batches_between_tests(data.train_samples, BATCH, DLRM_DCNV2)
    log = ComplianceLog(settings)
    log.init_stop()
    log.run_start(RunStart(None, "autograd"))
    log.data_opened(Split(data.train_samples), Split(data.eval_samples))
    log.epoch_start(Position(0, 0, BATCHES))
    for number, auc in enumerate((0.79, 0.8, 0.80275), start=1):
        position, metrics = Position(0, number * interval, BATCHES), with_auc(auc)
        log.evaluation_start(position)
        log.evaluation_stop(position, metrics, metrics, improved=True)
    log.epoch_stop(position)
    log.run_stop(position, Outcome.SUCCESS)
    return path


def with_auc(auc: float) -> Metrics:
    return replace(TrainingState().best, auc=auc)


def checked_without(log: Path, edition: Edition, keys: Collection[str]) -> CheckerOutput:
    """Return the verdict of the official checker on a log without the events of some keys."""
    lines = log.read_text().splitlines()
    kept = [line for line in lines if json.loads(line.removeprefix(":::MLLOG "))["key"] not in keys]
    assert len(kept) < len(lines) or not keys
    changed = log.with_suffix(".changed")
    changed.write_text("\n".join(kept) + "\n")
    return check_compliance(changed, edition)


@each_edition
def test_closed_log_is_accepted_and_misses_each_key_that_its_edition_requires(
    edition: Edition, tmp_path: Path
) -> None:
    log = log_on_full_data(tmp_path, edition)
    output = checked_without(log, edition, ())
    assert output.passed, output.errors
    assert not output.warnings
    keys = {event["key"] for event in events(log)}
    assert edition.required_keys <= keys
    refused = {key for key in keys if not checked_without(log, edition, {key}).passed}
    assert refused == edition.required_keys - {"seed"} - set().union(*ALTERNATIVES)
    for group in ALTERNATIVES:
        assert not checked_without(log, edition, group).passed


@each_edition
def test_log_of_the_latest_edition_satisfies_all_others(edition: Edition, tmp_path: Path) -> None:
    output = check_compliance(log_on_full_data(tmp_path, EDITIONS[-1]), edition)
    assert output.passed, output.errors


def test_events_of_the_full_data_are_numbered_from_epoch_0(tmp_path: Path) -> None:
    log = log_on_full_data(tmp_path, EDITIONS[-1])
    numbers = [event["metadata"]["epoch_num"] for event in events(log, "eval_accuracy")]
    assert numbers == [3200 * number / 64014 for number in (1, 2, 3)]
    assert [event["metadata"]["epoch_num"] for event in events(log, "epoch_start", "epoch_stop")] == [
        0,
        numbers[-1],
    ]
    blocks = [event["metadata"]["first_epoch_num"] for event in events(log, "block_start", "block_stop")]
    assert blocks == [0, 0]
    assert not events(log, "weights_initialization")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log of a run on small data that reached the target, in the open division."""
    folder = tmp_path_factory.mktemp("run")
    benchmark = {flag.partition("=")[0]: flag.partition("=")[2] for flag in DLRM_DCNV2.flags}
    small = {"--arch-sparse-feature-size": 4, "--arch-mlp-bot": "13-4", "--arch-mlp-top": "16-1"}
    small |= {"--dcn-num-layers": 1, "--dcn-low-rank-dim": 2, "--learning-rate": 0.05}
    result = mlperf.run(
        **{name.removeprefix("--").replace("-", "_"): value for name, value in {**benchmark, **small}.items()},
        data_generation="dataset",
        processed_data_file=write_easy_data(folder),
        mini_batch_size=32,
        mlperf_grad_accum_iter=2,
        nepochs=2,
        numpy_rand_seed=11,
        mlperf_logging=True,
        mlperf_division="open",
        mlperf_log_file=folder / "run.log",
    )
    assert result.outcome is Outcome.SUCCESS
    return folder / "run.log"


def test_run_logs_the_values_that_it_used(run: Path) -> None:
    values = {event["key"]: event["value"] for event in events(run)}
    expected = {
        "submission_benchmark": "dlrm_dcnv2",
        "seed": 11,
        "global_batch_size": 64,
        "gradient_accumulation_steps": 2,
        "opt_name": "adagrad",
        "opt_base_learning_rate": 0.05,
        "opt_adagrad_learning_rate_decay": 0,
        "opt_weight_decay": 0,
        "opt_adagrad_initial_accumulator_value": 0,
        "opt_adagrad_epsilon": 1e-8,
        "opt_learning_rate_warmup_steps": 0,
        "opt_learning_rate_decay_start_step": 0,
        "opt_learning_rate_decay_steps": 0,
        "train_samples": 4096,
        "eval_samples": 512,
    }
    assert {key: values[key] for key in expected} == expected
    (benchmark,) = events(run, "submission_benchmark")
    assert benchmark["metadata"]["edition"] == "6.0.0"
    assert values["eval_accuracy"] >= DLRM_DCNV2.auc_target


def test_run_is_evaluated_every_twentieth_of_an_epoch_rounded_down(run: Path) -> None:
    numbers = [event["metadata"]["epoch_num"] for event in events(run, "eval_accuracy")]
    assert numbers == pytest.approx([3 * number / 64 for number in range(1, len(numbers) + 1)])


@each_edition
def test_run_on_other_data_complies_with_the_open_division_only(
    edition: Edition, run: Path, tmp_path: Path
) -> None:
    assert check_log(run, edition).passed
    closed = tmp_path / "closed.log"
    closed.write_text(run.read_text().replace('"value": "open"', '"value": "closed"'))
    (error,) = check_compliance(closed, edition).errors
    assert "eval_samples" in error[1]
