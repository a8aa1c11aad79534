"""A test split with one class only: the undefined metrics are named once, and the defined ones are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from easy_data import write_easy_data
from program import run_program

FLAGS = ("--data-generation=dataset", "--arch-mlp-bot=13-4-2", "--mini-batch-size=1024", "--learning-rate=0.01")


@pytest.fixture(params=[0, 1])
def label(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def one_class(label: int, tmp_path: Path) -> Path:
    """Return the prefix of data whose test rows all have `label`."""
    prefix = write_easy_data(tmp_path)
    path = Path(f"{prefix}_test.bin")
    rows = np.fromfile(path, "<i4").reshape(-1, 40)
    rows[:, 0] = label
    rows.tofile(path)
    return prefix


def undefined(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("the test split has one class")]


def test_training_names_the_class_once_and_saves_by_accuracy(label: int, one_class: Path, tmp_path: Path) -> None:
    run = run_program(
        *FLAGS,
        *(f"--processed-data-file={one_class}", "--test-freq=1", "--mlperf-logging", "--save-model=m.pt"),
        cwd=tmp_path,
    )
    assert run.status == 0, run.stderr
    assert len(run.metric_lines) == 4
    assert all("auc nan, best auc nan" in line for line in run.metric_lines)
    (line,) = undefined(run.stderr)
    assert line == (
        f"the test split has one class only, label {label}: AUC and average precision are undefined; --save-model "
        "saves when the accuracy improves"
    )
    assert torch.load(tmp_path / "m.pt", weights_only=True)["test_acc"] >= 0


def test_threshold_on_an_undefined_auc_is_named(label: int, one_class: Path, tmp_path: Path) -> None:
    run = run_program(
        *FLAGS, f"--processed-data-file={one_class}", "--test-freq=2", "--mlperf-auc-threshold=0.6", cwd=tmp_path
    )
    assert run.status == 3
    (line,) = undefined(run.stderr)
    assert line.endswith("are undefined; --mlperf-auc-threshold=0.6 cannot be reached")


@pytest.mark.parametrize("flags", [(), ("--mlperf-logging", "--quantize-mlp-with-bit=16")])
def test_evaluation_names_the_class(flags: tuple[str, ...], label: int, one_class: Path, tmp_path: Path) -> None:
    run = run_program(*FLAGS, f"--processed-data-file={one_class}", "--inference-only", *flags, cwd=tmp_path)
    assert run.status == 0, run.stderr
    (line,) = undefined(run.stderr)
    assert line == f"the test split has one class only, label {label}: AUC and average precision are undefined"
    assert ("quantized" in run.stderr) == bool(flags)
    assert "change +nan" not in run.stderr
