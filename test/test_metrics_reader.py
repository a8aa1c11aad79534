"""Reading metrics files: of this program, resumed, unfinished, and from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from metrics_files import START, at, evaluation, progress, stop, write
from program import golden_flags, run_program

from mlperf.plots.curves import Curves, NoCurvesError, OtherBenchmarkError
from mlperf.plots.log_files import find_logs
from mlperf.plots.read_runs import Run
from mlperf.plots.run_labels import legend_labels
from mlperf.reporting.metrics_file import MetricsFile, check_metrics_file
from mlperf.reporting.metrics_reader import is_metrics_file, read_records
from mlperf.settings.from_flags import parse
from mlperf.training.events import Outcome, RunStart
from mlperf.util.errors import RunError


def test_curves_of_a_metrics_file_are_those_of_the_console(terabyte: Path, tmp_path: Path) -> None:
    run = run_program(*golden_flags("sgd", terabyte), "--metrics-file=run.jsonl", cwd=tmp_path)
    (tmp_path / "run.txt").write_text(run.stdout)
    console, metrics = Curves.of_log(tmp_path / "run.txt"), Run.of(tmp_path / "run.jsonl").curves
    for name, digits in (("loss", 1e-6), ("train_accuracy", 1e-5), ("accuracy", 1e-5), ("auc", 1e-4)):
        printed, written = getattr(console, name), getattr(metrics, name)
        assert [(p.iterations, p.epochs) for p in printed] == [(p.iterations, p.epochs) for p in written]
        assert [p.value for p in printed] == pytest.approx([p.value for p in written], abs=digits)
    drawn = run_program("run.jsonl", cwd=tmp_path, program="tools/plot_run.py")
    assert (drawn.status, drawn.stdout) == (0, "run.png: 1 run\n"), drawn.stderr


def test_resumed_run_is_read_as_one(tmp_path: Path) -> None:
    path = write(
        tmp_path / "run.jsonl",
        START,
        at("epoch_start", 1001.0, 0),
        progress(1005.0, 5, 0.5),
        at("checkpoint", 1005.0, 5, path="model.pt", kind="best"),
        progress(1008.0, 8, 0.4),
        evaluation(1008.0, 8),
        {**START, "time": 2000.0, "started_from": "epoch 0, iteration 5"},
        at("epoch_start", 2001.0, 5),
        progress(2004.0, 8, 0.3),
        progress(2006.0, 10, 0.2),
        stop(2007.0, 10),
    )
    run = read_records(path)
    assert [(each["iteration"], each["loss"]) for each in run.of("progress")] == [(5, 0.5), (8, 0.3), (10, 0.2)]
    assert run.of("evaluation_stop") == []
    assert len(run.of("checkpoint")) == 1
    # 5 seconds to the checkpoint, then 1 second to start and 3 to train again.
    assert [each["elapsed"] for each in run.of("progress")] == [5.0, 9.0, 11.0]
    assert run.start["started_from"] == "epoch 0, iteration 5"
    assert run.outcome == "success"


def test_line_that_is_still_written_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", START, progress(1001.0, 1))
    size = path.stat().st_size
    with path.open("a") as file:
        file.write('{"event": "progr')
    run = read_records(path)
    assert (len(run.records), run.size, run.outcome) == (2, size, None)
    assert Run.of(path).curves.warnings == ["the metrics end before the run does: there is no run_stop"]


def resumed(folder: Path) -> MetricsFile:
    settings = parse(["--metrics-file=run.jsonl"])
    return MetricsFile(settings, torch.device("cpu"), folder / "run.jsonl", continues=True)


def test_resumed_run_continues_after_the_last_complete_line(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", START, progress(1001.0, 1))
    earlier = path.read_text()
    path.write_text(earlier + '{"event": "progr')
    check_metrics_file(path, continues=True)
    file = resumed(tmp_path)
    file.run_start(RunStart("epoch 0, iteration 1", "autograd"))
    file.run_stop(None, Outcome.SUCCESS)
    assert path.read_text().startswith(earlier + '{"event": "run_start", ')
    assert len(read_records(path).of("run_start")) == 2


def test_resumed_run_that_does_not_start_leaves_the_earlier_records(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", START, progress(1001.0, 1))
    earlier = path.read_text()
    path.write_text(earlier + '{"event": "progr')
    resumed(tmp_path).run_stop(None, Outcome.FAILED)
    assert path.read_text() == earlier


def test_other_file_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("another program's\n")
    with pytest.raises(RunError, match=r"run\.jsonl: line 1: it is not JSON"):
        check_metrics_file(tmp_path / "run.jsonl", continues=True)
    assert (tmp_path / "run.jsonl").read_text() == "another program's\n"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (progress(1.0, 1, accuracy="high"), "accuracy is 'high', must be a number or null"),
        (progress(1.0, 1, accuracy=True), "accuracy is True, must be a number or null"),
        (progress(1.0, -1), "iteration is -1, must be a whole number from 0 to 9223372036854775807"),
        ({**progress(1.0, 1), "batches_per_epoch": 0}, "batches_per_epoch is 0, must be a whole number from 1 to"),
        ({"event": "progress", "time": 1.0, "epoch": 0}, "'progress' lacks iteration"),
        ({"event": "progress", "time": None}, "time is None, must be a number"),
        ({"event": 5, "time": 1.0}, "event is 5, must be a text"),
        ({"time": 1.0}, "event is None, must be a text"),
        (["event"], "the record is ['event'], must be an object"),
        ({**progress(1.0, 1), "loss": 10**400}, "loss is a number of 1329 bits, must be a number below 1e+300"),
        (at("run_stop", 1.0, 1), "'run_stop' lacks outcome"),
    ],
)
def test_wrong_record_is_refused_with_its_line(record: Any, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", START, record)
    with pytest.raises(RunError) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}: line 2: {reason}")
    assert "\n" not in str(caught.value)


def test_file_that_does_not_begin_with_a_run_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", progress(1.0, 1))
    with pytest.raises(RunError, match=r"line 1: the first event is 'progress', must be 'run_start'"):
        read_records(path)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", START)
    with path.open("a") as file:
        file.write(json.dumps(progress(1.0, 1)).replace("0.75", text) + "\n")
    with pytest.raises(RunError, match=r"line 2: it contains .*, which is not a finite number"):
        read_records(path)


def test_events_of_later_versions_are_ignored(tmp_path: Path) -> None:
    later = {"event": "weather", "time": 1001.0, "sun": [1, {}]}
    path = write(tmp_path / "run.jsonl", {**START, "more": 1}, later, progress(1002.0, 1))
    assert len(Run.of(path).curves.loss) == 1


def test_undefined_values_are_not_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", START, progress(1001.0, 1, None), evaluation(1002.0, 2, None))
    curves = Run.of(path).curves
    assert (len(curves.loss), len(curves.train_accuracy), len(curves.auc), len(curves.accuracy)) == (0, 1, 0, 1)


def test_run_without_progress_and_of_another_benchmark_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(NoCurvesError, match="has not reported any progress"):
        Run.of(write(tmp_path / "a.jsonl", START))
    with pytest.raises(OtherBenchmarkError, match="the run is of bert, not of dlrm or dlrm_dcnv2"):
        Run.of(write(tmp_path / "b.jsonl", {**START, "benchmark": "bert"}, progress(1001.0, 1)))


def test_compliance_log_is_no_metrics_file(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(':::MLLOG {"event": 1, "time": 1}\n')
    assert not is_metrics_file(tmp_path / "run.log")
    (tmp_path / "run.json").write_text('{"event_type": "x", "time": 1}\n')
    assert not is_metrics_file(tmp_path / "run.json")


def test_metrics_of_a_run_are_read_before_its_logs(tmp_path: Path) -> None:
    for name in ("a/metrics.jsonl", "a/mlperf.log", "a/out.txt", "b.jsonl", "b.log", "b.console.txt", "c.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    found = find_logs(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/metrics.jsonl", "b.jsonl", "c.log"]
    assert legend_labels([(path, Curves()) for path in found]) == ["a", "b", "c"]
