"""--track: runs in MLflow and Weights & Biases."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import mlflow_server
from program import run_program
from small_runs import SHAPE, TRAIN

from mlperf.reporting.metrics_reader import Record
from mlperf.reporting.sender import Sender

pytest.importorskip("mlflow")
wandb = pytest.importorskip("wandb")

TINY = ("--mini-batch-size=2", "--data-size=6")
TINY_LOSSES = [0.451893, 0.402002, 0.275460]


@pytest.fixture(autouse=True)
def same_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the environment, to which the trackers add their defaults."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_mlflow_gets_settings_curves_checkpoints_and_outcome(terabyte: Path, tmp_path: Path) -> None:
    flags = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", "--num-batches=6", "--nepochs=1")
    with mlflow_server() as (address, tracked):
        variables = {"MLFLOW_TRACKING_URI": address, "MLFLOW_EXPERIMENT_NAME": "try"}
        run = run_program(*flags, "--track=mlflow", "--output-dir=first", cwd=tmp_path, **variables)
    assert run.status == 0, run.stderr
    assert "View run" not in run.stdout
    assert f"--track=mlflow: run r1 in experiment 1 of {address}" in run.stderr
    assert (tracked.experiment, tracked.name, tracked.status) == ("try", "first", "FINISHED")
    assert tracked.params["arch-mlp-bot"] == "13-16-8"
    assert tracked.params["learning-rate"] == "0.1"
    assert tracked.tags["checkpoint.best"] == "first/model.pt"
    assert tracked.tags["outcome"] == "success"
    assert tracked.tags["engine"].startswith("cpu ")
    assert [round(loss, 6) for _, loss in tracked.metrics["train/loss"]] == run.losses
    assert [step for step, _ in tracked.metrics["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert tracked.metrics["train/learning_rate"][0] == (1, 0.1)
    ((step, auc),) = tracked.metrics["test/auc"]
    assert step == 6
    assert f"auc {auc:.4f}" in run.metric_lines[0]


@pytest.mark.parametrize(
    ("flags", "status", "outcome"),
    [("--learning-rate=1e30", "FAILED", "diverged"), ("--data-size=6", "FINISHED", "success")],
)
def test_mlflow_knows_how_a_run_ended(flags: str, status: str, outcome: str, tmp_path: Path) -> None:
    with mlflow_server() as (address, tracked):
        run_program(*TINY, flags, "--track=mlflow", cwd=tmp_path, MLFLOW_TRACKING_URI=address)
    assert (tracked.status, tracked.tags["outcome"]) == (status, outcome)


def test_server_that_does_not_take_records_does_not_stop_the_training(tmp_path: Path) -> None:
    with mlflow_server(fails=True) as (address, _):
        run = run_program(*TINY, "--track=mlflow", cwd=tmp_path, MLFLOW_TRACKING_URI=address)
    assert run.status == 0, run.stderr
    assert run.losses == TINY_LOSSES
    lines = [line for line in run.stderr.splitlines() if "sent" in line]
    assert lines == [
        "--track=mlflow: records cannot be sent, and are sent again later: INVALID_STATE: the server is full",
        "--track=mlflow: 7 records were not sent: INVALID_STATE: the server is full",
    ]


def test_server_that_does_not_answer_is_an_error_at_the_start(tmp_path: Path) -> None:
    variables = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    run = run_program(*TINY, "--track=mlflow", "--output-dir=run", cwd=tmp_path, **variables)
    assert run.status == 1
    assert run.stdout == ""
    error = run.stderr.splitlines()[-1]
    assert error.startswith("dlrm_s_pytorch.py: error: --track=mlflow: the run cannot be created: API request to ")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["settings.toml"]


def test_wandb_keeps_the_records_of_a_run_offline(tmp_path: Path) -> None:
    run = run_program(*TINY, "--track=wandb", "--output-dir=run", cwd=tmp_path, WANDB_MODE="offline")
    assert run.status == 0, run.stderr
    assert run.losses == TINY_LOSSES
    assert "wandb" not in run.stdout
    (file,) = (tmp_path / "run").rglob("run-*.wandb")
    config, history, summary = contents(file)
    assert (config["mini-batch-size"], config["engine"], config["seed"]) == (2, "autograd", 123)
    assert [round(point["train/loss"], 6) for point in history] == TINY_LOSSES
    assert [point["_step"] for point in history] == [1, 2, 3]
    assert summary["outcome"] == "success"


def contents(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Return the configuration, the points and the summary in a file of wandb."""
    from wandb.proto import wandb_internal_pb2

    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for data in log_records(file.read_bytes()):
        stored = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made when it is imported
        stored.ParseFromString(data)
        config |= {each.key: json.loads(each.value_json) for each in stored.config.update}
        summary |= {each.key: json.loads(each.value_json) for each in stored.summary.update}
        if stored.HasField("history"):
            items = stored.history.item
            history.append({each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items})
    return config, history, summary


def log_records(content: bytes) -> Iterator[bytes]:
    """Yield the records in a log of LevelDB, which has blocks of 32 KB, after the 7 bytes of wandb's header."""
    position, record = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
        size, kind = struct.unpack_from("<HB", content, position + 4)
        record += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # the whole record, or the end of one
            yield record
            record = b""


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("mlflow", "--track=mlflow: needs mlflow (pip install mlflow-skinny): "),
        ("wandb", "--track=wandb: needs wandb (pip install wandb): "),
    ],
)
def test_missing_package_is_named_before_anything_is_done(
    tracker: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    run = run_program(*TINY, f"--track={tracker}", "--output-dir=run", cwd=tmp_path)
    assert run.status == 2
    assert run.stderr.splitlines()[-1].startswith(f"dlrm_s_pytorch.py: error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_wandb_without_login_is_refused(tmp_path: Path) -> None:
    variables = {"WANDB_MODE": "online", "WANDB_API_KEY": "", "NETRC": str(tmp_path / "none")}
    run = run_program(*TINY, "--track=wandb", cwd=tmp_path, HOME=str(tmp_path), **variables)
    assert (run.status, run.stderr.splitlines()[-1]) == (
        2,
        "dlrm_s_pytorch.py: error: --track=wandb: run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline",
    )


def test_evaluation_is_not_tracked(tmp_path: Path) -> None:
    run = run_program(*SHAPE, "--processed-data-file=x", "--inference-only", "--track=mlflow", cwd=tmp_path)
    assert run.status == 2
    assert "--track cannot be used with --inference-only, because it reports on the training" in run.stderr


def test_records_that_were_not_sent_are_sent_again_in_order() -> None:
    sent: list[Record] = []
    attempts: list[int] = []

    def send(records: Sequence[Record]) -> None:
        attempts.append(len(records))
        if len(attempts) == 1:
            raise ConnectionError("no answer")
        sent.extend(records)

    sender = Sender("test", send)
    sender.put({"number": 1})
    deadline = time.monotonic() + 20
    while not attempts and time.monotonic() < deadline:
        time.sleep(0.01)
    sender.put({"number": 2})
    sender.close(20)
    assert [record["number"] for record in sent] == [1, 2]
    assert attempts == [1, 2]
