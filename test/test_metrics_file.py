"""The metrics file: one JSON object per event, for other programs."""

from __future__ import annotations

import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from program import GOLDEN, golden_flags, run_program

from mlperf.reporting.metrics_reader import read_records
from mlperf.reporting.records import defined
from mlperf.version import __version__

RANDOM = ("--data-size=6", "--mini-batch-size=2")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file. Fails for text that strict JSON does not allow."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def of(records: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [record for record in records if record["event"] == event]


def test_metrics_file_says_what_the_console_says(terabyte: Path, tmp_path: Path) -> None:
    before = time.time()
    flags = (*golden_flags("sgd", terabyte), "--save-model=model.pt")
    run = run_program(*flags, "--metrics-file=run.jsonl", cwd=tmp_path)
    assert run.status == 0, run.stderr
    records = read(tmp_path / "run.jsonl")
    times = [record["time"] for record in records]
    assert times == sorted(times)
    assert before - 1 < times[0] <= times[-1] < time.time() + 1
    printed = [
        f"Finished training it {each['iteration']}/{each['batches_per_epoch']} of epoch {each['epoch']}, "
        f"-1.00 ms/it, loss {each['loss']:.6f}, accuracy {100 * each['accuracy']:.3f}%"
        for each in of(records, "progress")
    ]
    assert printed == run.progress_lines
    tests = of(records, "evaluation_stop")
    assert tests[-1]["auc"] == pytest.approx(0.5398, abs=1e-4)
    assert all(f"auc {each['auc']:.4f}, best auc {each['best_auc']:.4f}, " in run.stdout for each in tests)
    assert all(0 < each["seconds"] < 60 for each in tests)
    saved = of(records, "checkpoint")
    assert [each["iteration"] for each in saved] == [each["iteration"] for each in tests if each["improved"]]
    assert {(each["path"], each["kind"]) for each in saved} == {("model.pt", "best")}
    assert records[-1] | {"time": 0} == {
        **{"event": "run_stop", "time": 0, "outcome": "success"},
        **{"epoch": 0, "iteration": 55, "batches_per_epoch": 55},
    }
    without = run_program(*golden_flags("sgd", terabyte), cwd=tmp_path)
    assert without.stdout == run.stdout


def test_first_record_says_what_the_run_is(tmp_path: Path) -> None:
    flags = ("--learning-rate=0.5", "--arch-mlp-bot=4-3-2", "--metrics-file=run.jsonl", "--numpy-rand-seed=3")
    run = run_program(*RANDOM, *flags, cwd=tmp_path)
    assert run.status == 0, run.stderr
    start = read(tmp_path / "run.jsonl")[0]
    assert start["event"] == "run_start"
    assert start["version"] == __version__
    assert f"engine: {start['engine']}" in run.stderr
    assert (start["seed"], start["started_from"], start["benchmark"]) == (3, None, "dlrm")
    assert start["settings"] == {
        **{"data-size": 6, "mini-batch-size": 2, "learning-rate": 0.5, "numpy-rand-seed": 3},
        "metrics-file": "run.jsonl",
    }
    assert start["system"]["processes"] == 1
    assert start["system"]["memory"] > 1e8


def test_progress_has_the_learning_rate_of_its_step_and_all_samples(tmp_path: Path) -> None:
    flags = ("--learning-rate=0.6", "--lr-num-warmup-steps=3", "--nepochs=2", "--mlperf-grad-accum-iter=2")
    run = run_program(*RANDOM, *flags, "--metrics-file=run.jsonl", cwd=tmp_path)
    assert run.status == 0, run.stderr
    progress = of(read(tmp_path / "run.jsonl"), "progress")
    # A step after batches 2 and 3 of each epoch; before the first, the rate that it will have.
    assert [each["learning_rate"] for each in progress] == pytest.approx([0.2, 0.2, 0.4, 0.4, 0.6, 0.6])
    assert [each["samples"] for each in progress] == [2, 4, 6, 8, 10, 12]


def test_undefined_metrics_are_null() -> None:
    record = {"auc": math.nan, "best": [1.0, math.inf], "count": 3, "parts": {"a": -math.inf, "b": "NaN"}}
    assert defined(record) == {"auc": None, "best": [1.0, None], "count": 3, "parts": {"a": None, "b": "NaN"}}


def test_metrics_that_are_not_computed_are_null(terabyte: Path, tmp_path: Path) -> None:
    flags = [flag for flag in golden_flags("sgd", terabyte) if flag != "--mlperf-logging"]
    run = run_program(*flags, "--metrics-file=run.jsonl", cwd=tmp_path)
    assert run.status == 0, run.stderr
    tests = of(read(tmp_path / "run.jsonl"), "evaluation_stop")
    assert tests
    assert {(each["auc"], each["recall"], each["best_auc"]) for each in tests} == {(None, None, None)}


def test_earlier_metrics_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("{}\n")
    run = run_program(*RANDOM, "--metrics-file=run.jsonl", cwd=tmp_path)
    assert run.status == 2
    assert run.stderr == (
        "dlrm_s_pytorch.py: error: --metrics-file=run.jsonl: exists and is not overwritten; name another file, or "
        "remove this one\n"
    )
    assert (tmp_path / "run.jsonl").read_text() == "{}\n"


def test_run_that_diverges_says_so_in_the_last_record(tmp_path: Path) -> None:
    run = run_program(*RANDOM, "--learning-rate=1e30", "--metrics-file=run.jsonl", "--nepochs=9", cwd=tmp_path)
    assert run.status == 1
    assert read(tmp_path / "run.jsonl")[-1]["outcome"] == "diverged"


def test_run_that_does_not_start_leaves_no_metrics(terabyte: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no checkpoint")
    flags = ("--load-model=model.pt", "--metrics-file=run.jsonl")
    run = run_program(*golden_flags("sgd", terabyte), *flags, cwd=tmp_path)
    assert run.status == 1
    assert not (tmp_path / "run.jsonl").exists()


@pytest.mark.parametrize("flags", [(), ("--quantize-emb-with-bit=8",), ("--time-breakdown",)])
def test_evaluation_alone_is_recorded(flags: tuple[str, ...], terabyte: Path, tmp_path: Path) -> None:
    given = (*golden_flags("sgd_inference", terabyte), f"--load-model={GOLDEN}/terabyte/sgd.pt", *flags)
    run = run_program(*given, "--metrics-file=run.jsonl", cwd=tmp_path)
    assert run.status == 0, run.stderr
    records = read_records(tmp_path / "run.jsonl").records
    times = ["time_breakdown"] if "--time-breakdown" in flags else []
    events = ["run_start", "evaluation_start", "evaluation_stop", *times, "run_stop"]
    assert [record["event"] for record in records] == events
    assert (records[0]["started_from"], records[-1]["outcome"]) == ("weights", "success")
    accuracy = re.findall(r"accuracy ([\d.]+) %, best", run.stdout)[-1]
    assert 100 * records[2]["accuracy"] == pytest.approx(float(accuracy), abs=1e-3)
    assert records[2]["seconds"] > 0
    page = run_program("run.jsonl", cwd=tmp_path, program="tools/report.py")
    assert (page.status, page.stderr) == (
        1,
        "report.py: error: run.jsonl: an evaluation without training has no curves\n",
    )


def test_metrics_file_is_not_written_for_scored_text(terabyte: Path, tmp_path: Path) -> None:
    flags = ("--inference-only", "--score-text=x", "--load-model=y", "--metrics-file=run.jsonl")
    run = run_program(*golden_flags("sgd", terabyte), *flags, cwd=tmp_path)
    assert run.status == 2
    assert "--metrics-file cannot be combined with --score-text=x, which evaluates no split" in run.stderr


def test_full_disk_ends_the_run_in_one_line(tmp_path: Path) -> None:
    run = run_program(*RANDOM, "--metrics-file=/dev/full", cwd=tmp_path)
    assert run.status == 1
    assert run.stderr.splitlines()[-1] == (
        "dlrm_s_pytorch.py: error: --metrics-file=/dev/full: cannot be written: No space left on device"
    )


def test_metrics_can_be_piped_to_another_program(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        run = run_program(*RANDOM, "--metrics-file=pipe", cwd=tmp_path)
        assert run.status == 0, run.stderr
        events = [json.loads(line)["event"] for line in os.read(reader, 1 << 16).splitlines()]
    finally:
        os.close(reader)
    assert events == ["run_start", "data_opened", "epoch_start", *["progress"] * 3, "run_stop"]


@pytest.mark.parametrize("flag", ["--save-model", "--mlperf-log-file"])
def test_metrics_file_is_no_other_output(flag: str, terabyte: Path, tmp_path: Path) -> None:
    run = run_program(*golden_flags("sgd", terabyte), f"{flag}=x", "--metrics-file=./x", cwd=tmp_path)
    assert run.status == 2
    assert "is the same file as" in run.stderr
