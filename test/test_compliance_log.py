"""The compliance log, verified by the official checkers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from easy_data import write_easy_data
from program import ROOT, run_program
from program import read_events as events

from mlperf.benchmarks import DLRM, Edition, editions_of
from mlperf.compliance.official import check_compliance
from mlperf.evaluation.metrics import Metrics
from mlperf.reporting.compliance_log import ComplianceLog
from mlperf.settings.from_flags import parse
from mlperf.submission.check import check_log
from mlperf.submission.run_set import finished_log
from mlperf.training.events import Outcome, Position
from mlperf.util.signals import Stopped, handlers_of_caller, raised_in_program

BENCHMARK = (
    *(*DLRM.flags, "--data-generation=dataset", "--mlperf-bin-loader", "--mlperf-bin-shuffle"),
    *("--mini-batch-size=128", "--learning-rate=0.2", "--nepochs=4", "--mlperf-logging"),
)
EDITIONS = editions_of(DLRM)
ENDS = ("start", "stop")
# A network that trains in no time, where the target does not matter.
SMALL = (
    *("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=2-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mini-batch-size=128", "--mlperf-logging"),
)


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of data on which the target is reached quickly."""
    return write_easy_data(tmp_path_factory.mktemp("easy"))


@pytest.fixture(scope="module")
def log(easy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log of a run that reached the target."""
    folder = tmp_path_factory.mktemp("run")
    run = run_program(*BENCHMARK, f"--processed-data-file={easy}", "--mlperf-log-file=run.log", cwd=folder)
    assert run.status == 0, run.stderr
    return folder / "run.log"


@pytest.mark.parametrize("edition", [edition.name for edition in EDITIONS])
def test_official_checker_accepts_the_log_without_a_warning(edition: str, log: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mlperf_logging.compliance_checker", "--usage", "training"),
            *("--ruleset", edition, str(log)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "SUCCESS" in done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


def test_check_of_this_project_agrees_with_the_official_checker(log: Path) -> None:
    reports = [check_log(log, edition) for edition in EDITIONS]
    assert all(report.passed for report in reports)
    assert not any(check.warnings for report in reports for check in report.checks)


def test_events_come_in_the_order_of_a_timed_run(log: Path) -> None:
    keys = [event["key"] for event in events(log)]
    order = ["init_start", "init_stop", "run_start", "train_samples", "block_start", "epoch_start", "eval_start"]
    order += ["eval_accuracy", "eval_stop"]
    first = [keys.index(key) for key in order]
    assert first == sorted(first)
    assert keys[-3:] == ["epoch_stop", "block_stop", "run_stop"]


def test_logged_sample_counts_and_metrics_are_correct(log: Path) -> None:
    assert [event["value"] for event in events(log, "train_samples", "eval_samples")] == [4096, 512]
    values = {event["key"]: event["value"] for event in events(log)}
    assert values["submission_benchmark"] == "dlrm"
    assert values["submission_division"] == "closed"
    assert values["cache_clear"] is False
    assert events(log, "eval_accuracy")[-1]["value"] >= DLRM.auc_target


def test_each_hyperparameter_is_logged_under_its_own_key(easy: Path, tmp_path: Path) -> None:
    run = run_program(
        *(*SMALL, f"--processed-data-file={easy}", "--num-batches=4", "--mlperf-grad-accum-iter=2"),
        *("--learning-rate=0.25", "--lr-num-warmup-steps=3", "--lr-decay-start-step=5", "--lr-num-decay-steps=7"),
        *("--numpy-rand-seed=11", "--mlperf-cache-cleared", "--mlperf-platform=box", "--mlperf-submitter=Us"),
        cwd=tmp_path,
    )
    assert run.status == 0, run.stderr
    values = {event["key"]: event["value"] for event in events(tmp_path / "mlperf_dlrm.log")}
    expected = {
        "seed": 11,
        "global_batch_size": 256,
        "gradient_accumulation_steps": 2,
        "opt_name": "sgd",
        "opt_base_learning_rate": 0.25,
        "opt_learning_rate_warmup_steps": 3,
        "lr_decay_start_steps": 5,
        "sgd_opt_base_learning_rate": 0.25,
        "sgd_opt_learning_rate_decay_poly_power": 2,
        "sgd_opt_learning_rate_decay_steps": 7,
        "cache_clear": True,
        "submission_platform": "box",
        "submission_org": "Us",
    }
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
def test_log_has_the_keys_that_its_edition_requires(edition: Edition, easy: Path, tmp_path: Path) -> None:
    run = run_program(
        *(*SMALL, f"--processed-data-file={easy}", "--num-batches=2", "--test-freq=2"),
        *(f"--mlperf-edition={edition.name}", "--mlperf-status=cloud"),
        cwd=tmp_path,
    )
    assert run.status == 0, run.stderr
    values = {event["key"]: event for event in events(tmp_path / "mlperf_dlrm.log")}
    optional = {"gradient_accumulation_steps", "weights_initialization"}
    assert values.keys() & optional == edition.required_keys & optional
    assert edition.required_keys <= values.keys()
    assert values["submission_benchmark"]["metadata"]["edition"] == edition.name
    assert values["submission_status"]["value"] == "cloud"


def test_epoch_num_is_one_plus_the_completed_epochs(log: Path) -> None:
    shares = [event["metadata"]["epoch_num"] for event in events(log, "eval_accuracy")]
    assert shares == pytest.approx([1 + 2 * number / 32 for number in range(1, len(shares) + 1)])


def test_every_event_is_one_line_of_json(log: Path) -> None:
    for line in log.read_text().splitlines():
        assert line.startswith(":::MLLOG ")
        json.loads(line.removeprefix(":::MLLOG "))


def assert_aborted(log: Path) -> None:
    stops = events(log, "run_stop")
    assert [stop["metadata"]["status"] for stop in stops] == ["aborted"]
    assert not any(check_log(log, edition).passed for edition in EDITIONS)
    opened = [event["key"].removesuffix("_start") for event in events(log) if event["key"].endswith("_start")]
    closed = [event["key"].removesuffix("_stop") for event in events(log) if event["key"].endswith("_stop")]
    for key in ("block", "epoch", "eval"):
        assert opened.count(key) == closed.count(key)


def test_run_that_misses_the_target_is_aborted(easy: Path, tmp_path: Path) -> None:
    run = run_program(
        *(*SMALL, f"--processed-data-file={easy}", "--mlperf-auc-threshold=0.9999", "--num-batches=4"),
        cwd=tmp_path,
    )
    assert run.status == 3
    assert "the target was not reached" in run.stderr
    assert_aborted(tmp_path / "mlperf_dlrm.log")


def test_run_without_a_threshold_is_aborted_below_the_target_of_the_edition(easy: Path, tmp_path: Path) -> None:
    run = run_program(*SMALL, f"--processed-data-file={easy}", "--num-batches=1", "--test-freq=1", cwd=tmp_path)
    assert run.status == 0
    assert len(run.metric_lines) == 1
    assert_aborted(tmp_path / "mlperf_dlrm.log")


def test_nonfinite_loss_ends_the_run_and_logs_aborted(easy: Path, tmp_path: Path) -> None:
    run = run_program(
        *(*SMALL, f"--processed-data-file={easy}", "--learning-rate=1e30", "--test-freq=100"), cwd=tmp_path
    )
    assert run.status == 1
    engine, error = run.stderr.splitlines()
    assert engine.startswith("engine: ")
    assert "the training loss is" in error
    assert_aborted(tmp_path / "mlperf_dlrm.log")
    assert finished_log(tmp_path) is not None  # in a set of runs it counts as not converged


def test_data_error_during_training_logs_aborted(easy: Path, tmp_path: Path) -> None:
    for path in easy.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = np.fromfile(tmp_path / "easy_train.bin", "<i4").reshape(-1, 40)
    rows[77, 20] = 4
    rows.tofile(tmp_path / "easy_train.bin")
    run = run_program(
        *(*SMALL, f"--processed-data-file={tmp_path}/easy", "--mlperf-auc-threshold=1.0"), cwd=tmp_path
    )
    assert run.status == 1
    assert "easy_train.bin: row 78, column 21: index 4 is not in table 6, which has 4 rows" in run.stderr
    assert_aborted(tmp_path / "mlperf_dlrm.log")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_logs_aborted(number: signal.Signals, easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--mlperf-auc-threshold=1.0", "--nepochs=10000")
    with subprocess.Popen(
        [sys.executable, str(ROOT / "dlrm_s_pytorch.py"), *flags],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Testing"):
            assert process.poll() is None
        time.sleep(0.1)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert "Traceback" not in stderr
    engine, message = stderr.splitlines()
    assert engine.startswith("engine: ")
    ends = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "stopped by SIGHUP"}
    assert message.endswith(ends[number])
    assert_aborted(tmp_path / "mlperf_dlrm.log")
    assert finished_log(tmp_path) is None


def test_signal_at_any_moment_of_an_evaluation_ends_everything_once(tmp_path: Path) -> None:
    """A signal arrives whenever a function of this project returns while the log of an epoch is written."""
    position = Position(0, 3, 10)
    metrics = Metrics(0.5, 0.5, 0.5, 0.5, 0.5, 0.5)

    def interrupted_after(returns: int, path: Path) -> bool:
        """Return whether there were so many returns."""
        log = ComplianceLog(parse([*SMALL, "--processed-data-file=x", f"--mlperf-log-file={path}"]))
        remaining = returns

        def on_event(frame: FrameType, event: str, argument: object) -> None:
            nonlocal remaining
            if event == "return" and "mlperf/" in frame.f_code.co_filename:
                remaining -= 1
                if remaining == 0:
                    signal.raise_signal(signal.SIGTERM)

        outcome = Outcome.SUCCESS
        with handlers_of_caller(), raised_in_program():
            try:
                sys.setprofile(on_event)
                log.epoch_start(position)
                log.evaluation_start(position)
                log.evaluation_stop(position, metrics, metrics, True)
                log.epoch_stop(position)
            except Stopped:
                outcome = Outcome.INTERRUPTED
            finally:
                sys.setprofile(None)
            log.run_stop(position, outcome)
        return outcome is Outcome.INTERRUPTED

    returns = 1
    while interrupted_after(returns, tmp_path / f"{returns}.log"):
        found = events(tmp_path / f"{returns}.log")
        for key in ("block", "epoch", "eval"):
            starts, stops = ([event for event in found if event["key"] == f"{key}_{edge}"] for edge in ENDS)
            assert len(starts) == len(stops) <= 1
        returns += 1
    assert returns > 20


def test_log_states_where_a_run_from_a_checkpoint_started(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=4", "--test-freq=2", "--learning-rate=0.2")

    def started_from(*more: str) -> object:
        log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
        run = run_program(*flags, f"--mlperf-log-file={log.name}", *more, cwd=tmp_path)
        assert run.status == 0, run.stderr
        (start,) = events(log, "run_start")
        return start["metadata"].get("started_from")

    assert started_from("--save-model=model.pt") is None
    contents = torch.load(tmp_path / "model.pt", weights_only=True)
    position = f"epoch 0, iteration {contents['iter']}"
    assert started_from("--load-model=model.pt") == position
    del contents["continuation"]
    torch.save(contents, tmp_path / "foreign.pt")
    assert started_from("--load-model=foreign.pt", "--nepochs=2") == position
    torch.save({**contents, "epoch": 0, "iter": 0}, tmp_path / "untrained.pt")
    assert started_from("--load-model=untrained.pt") == "weights"


def test_official_checker_accepts_a_log_that_states_where_the_run_started(log: Path, tmp_path: Path) -> None:
    marked = tmp_path / "marked.log"
    lines = log.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if '"run_start"' in line)
    event = json.loads(lines[number].removeprefix(":::MLLOG "))
    event["metadata"]["started_from"] = "epoch 0, iteration 300"
    lines[number] = f":::MLLOG {json.dumps(event)}"
    marked.write_text("\n".join(lines) + "\n")
    for edition in EDITIONS:
        output = check_compliance(marked, edition)
        assert output.passed
        assert not output.warnings


def test_default_name_of_a_log_gets_a_number_if_there_is_one(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=1")
    first, second = (run_program(*flags, f"--numpy-rand-seed={seed}", cwd=tmp_path) for seed in (1, 2))
    assert "mlperf_dlrm" not in first.stderr
    assert "the compliance log of this run is mlperf_dlrm_2.log" in second.stderr
    logs = [tmp_path / "mlperf_dlrm.log", tmp_path / "mlperf_dlrm_2.log"]
    assert sorted(tmp_path.iterdir()) == logs
    assert [event["value"] for log in logs for event in events(log, "seed")] == [1, 2]


def test_log_with_a_name_of_its_own_is_not_overwritten(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=1", "--mlperf-log-file=run.log")
    (tmp_path / "run.log").touch()  # as mktemp does
    assert run_program(*flags, cwd=tmp_path).status == 0
    written = (tmp_path / "run.log").read_text()
    assert written.count("run_stop") == 1
    again = run_program(*flags, cwd=tmp_path)
    assert again.status == 2
    assert again.stdout == ""
    assert "--mlperf-log-file=run.log: exists and is not overwritten" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    assert (tmp_path / "run.log").read_text() == written


def test_run_that_fails_before_its_first_step_leaves_no_log(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=2", "--mlperf-log-file=run.log")
    assert run_program(*flags[:-1], "--test-freq=2", "--save-model=model.pt", cwd=tmp_path).status == 0
    for wrong in ("--arch-mlp-top=3-1", "--num-batches=1"):  # refused by the checkpoint's flags, by its position
        run = run_program(*flags, "--load-model=model.pt", wrong, cwd=tmp_path)
        assert run.status == 1
        assert not (tmp_path / "run.log").exists()
        run = run_program(*flags[:-1], "--load-model=model.pt", wrong, cwd=tmp_path)
        assert "mlperf_dlrm" not in run.stderr
    assert run_program(*flags, "--load-model=model.pt", "--nepochs=2", cwd=tmp_path).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlperf_dlrm.log", "model.pt", "run.log"]


def test_log_may_be_a_device(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=1", "--mlperf-log-file=/dev/null")
    assert run_program(*flags, cwd=tmp_path).status == 0


def test_log_on_a_full_disk_ends_the_run_with_one_line(easy: Path, tmp_path: Path) -> None:
    flags = (*SMALL, f"--processed-data-file={easy}", "--num-batches=1", "--mlperf-log-file=/dev/full")
    run = run_program(*flags, cwd=tmp_path)
    assert (run.status, run.stdout) == (1, "")
    assert run.stderr == (
        "dlrm_s_pytorch.py: error: --mlperf-log-file=/dev/full: cannot be written: No space left on device\n"
    )


def test_aborted_log_that_reached_the_target_does_not_pass(log: Path, tmp_path: Path) -> None:
    doctored = tmp_path / "doctored.log"
    doctored.write_text(log.read_text().replace('"status": "success"', '"status": "aborted"'))
    assert not any(check_log(doctored, edition).passed for edition in EDITIONS)


def test_accuracy_threshold_is_a_fraction_and_stops_the_run(easy: Path, tmp_path: Path) -> None:
    flags = [flag for flag in BENCHMARK if "auc-threshold" not in flag and "logging" not in flag]
    run = run_program(
        *flags, f"--processed-data-file={easy}", "--mlperf-acc-threshold=0.7", "--print-freq=100", cwd=tmp_path
    )
    assert run.status == 0
    accuracies = [float(line.split()[1]) for line in run.metric_lines]
    assert accuracies[-1] >= 70.0
    assert all(accuracy < 70.0 for accuracy in accuracies[:-1])
    assert not (tmp_path / "mlperf_dlrm.log").exists()


def test_threshold_without_test_freq_evaluates_20_times_per_epoch(easy: Path, tmp_path: Path) -> None:
    run = run_program(
        *(*SMALL, f"--processed-data-file={easy}", "--mlperf-auc-threshold=1.0", "--nepochs=1"),
        "--mini-batch-size=16",  # 256 batches: every 13th, and the last
        cwd=tmp_path,
    )
    assert len(run.metric_lines) == 20


def test_log_that_cannot_be_written_is_reported_before_training(easy: Path, tmp_path: Path) -> None:
    run = run_program(*(*SMALL, f"--processed-data-file={easy}", "--mlperf-log-file=none/run.log"), cwd=tmp_path)
    assert run.status in (1, 2)
    assert "--mlperf-log-file=none/run.log" in run.stderr
    assert run.stdout == ""
