"""Wrong flags of the measuring scripts in bench/ are refused in one line before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_modules import bench_module

from mlperf.util.errors import UsageError


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
        ("measure_preparation", "--rows=1", "a whole number from 24000 "),
        ("compare_commits", "--rounds=0", "a whole number from 1 "),
    ],
)
def test_wrong_flag_is_refused_with_what_is_allowed(
    script: str, flag: str, allowed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [f"{script}.py", flag])
    with pytest.raises(UsageError) as caught:
        bench_module(script).main()
    assert flag.partition("=")[0] in str(caught.value)
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)
