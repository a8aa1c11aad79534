"""Wrong flags of the measuring scripts in bench/ are refused in one line before anything is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench_modules import bench_module
from program import ROOT

from mlperf.util.errors import UsageError

SHAPES = "MLPerf-full-65536, MLPerf-65536, MLPerf-2048, Kaggle-128, DCNv2-65536, DCNv2-2048"


@pytest.mark.parametrize(
    ("script", "flag", "allowed"),
    [
        ("measure_auc", "--scores=1", "a whole number from 100 "),
        ("measure_auc", "--repeats=x", "a whole number from 1 "),
        ("measure_checkpoints", "--gigabytes=-1", "a number in "),
        ("measure_checkpoints", "--folder=nowhere", "a folder"),
        ("measure_optimizers", "--rounds=0", "a whole number from 1 "),
        ("measure_precisions", "--seeds=0", "a whole number from 1 "),
        ("measure_precisions", "--precision=", "fp32, bf16"),
        ("measure_preparation", "--cores=1,a", "a whole number from 1 "),
        ("measure_preparation", "--forms=x", "terabyte, terabyte_dcnv2, reference, columns, words"),
        ("measure_preparation", "--rows=1", "a whole number from 24000 "),
        ("compare_commits", "--rounds=0", "a whole number from 1 "),
        ("measure_optimizers", "--shapes=Kaggle", "Kaggle-128"),
        ("time_dcnv2", "--reduced --precision=fp8", "bf16, tf32, fp32"),
        (
            "measure_training",
            "--reduced --shapes=MLPerf",
            SHAPES,
        ),
        (
            "measure_training",
            "--reduced --shapes=",
            SHAPES,
        ),
        ("measure_training", "--reduced --precision=bf16,fp8", "bf16, fp32"),
        ("measure_training", "--reduced --precision=tf32", "bf16, fp32"),
        ("measure_training", "--reduced --minutes=0", "a number in [1e-37,"),
        ("measure_training", "--reduced --minutes=nan", "a number in [1e-37,"),
        ("measure_training", "--reduced --rounds=0", "a whole number from 1 "),
        ("measure_training", "--reduced --evaluate=-1", "a whole number from 0 "),
        ("measure_training", "--reduced --use-gpu", "--reduced"),
        ("measure_scaling", "--reduced --processes=2,x", "a whole number from 1 on"),
        ("measure_scaling", "--reduced --processes=0", "a whole number from 1 on"),
        ("measure_scaling", "--reduced --sharding=auto", "table-wise, row-wise, column-wise"),
        ("measure_scaling", "--reduced --shapes=MLPerf", "MLPerf-2048"),
        ("measure_scaling", "--reduced --precision=fp8", "bf16, fp32"),
        ("measure_scaling", "--reduced --cores=0", "a whole number from 1 "),
        ("measure_scaling", "--reduced --rows=0", "a whole number from 1 "),
        ("measure_scaling", "--reduced --use-gpu", "--reduced"),
    ],
)
def test_wrong_flag_is_refused_with_what_is_allowed(
    script: str, flag: str, allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{script}.py", *flag.split()])
    with pytest.raises(UsageError) as caught:
        bench_module(script).main()
    assert flag.rsplit(maxsplit=1)[-1].partition("=")[0] in str(caught.value)
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)


GPU_SCRIPTS = ("profile_step", "run_for_sanitizer", "time_dcnv2", "time_full_tables", "tune_kernels")


@pytest.mark.parametrize("script", GPU_SCRIPTS)
def test_measuring_a_gpu_without_one_is_refused(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", [f"{script}.py"])
    with pytest.raises(UsageError, match="no GPU is visible to PyTorch; --reduced runs without one"):
        bench_module(script).main()
    monkeypatch.setattr("sys.argv", [f"{script}.py", "--reduced"])
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UsageError, match="--reduced needs Triton's interpreter: set TRITON_INTERPRET=1"):
        bench_module(script).main()


def test_scripts_for_a_gpu_find_their_modules_from_any_folder(tmp_path: Path) -> None:
    script = ROOT / "bench" / "gpu" / "print_environment.py"
    done = subprocess.run(
        [sys.executable, str(script), "--reduce"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("print_environment.py: error: ")
    assert len(done.stderr.splitlines()) == 1
