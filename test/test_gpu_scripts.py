"""The scripts of bench/gpu/ in their reduced form, which needs no GPU, and the stages of run.sh."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bench_modules import bench_module, printed
from program import ROOT

from mlperf.benchmarks import DLRM_DCNV2

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the reduced forms run in Triton's interpreter")

UPDATES = [
    "sgd, tables in bf16",
    "adagrad, tables in fp32",
    "adagrad, tables in bf16",
    "rwsadagrad, tables in fp32",
]


@pytest.mark.slow
def test_profile_covers_each_precision_optimizer_and_kind_of_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = printed("profile_step", monkeypatch, capsys, "--reduced", f"--output={tmp_path / 'profile.json'}")
    steps = [re.sub(r"^.* rows in (.*): batch .* ms/step.*$", r"\1", line) for line in lines if "ms/step" in line]
    assert steps == [
        *("fp32, sgd, bf16", "fp32, sgd, tf32", "fp32, sgd, fp32"),
        *("bf16, sgd, bf16", "fp32, adagrad, bf16", "bf16, adagrad, bf16", "fp32, rwsadagrad, bf16"),
    ]
    kernels = json.loads((tmp_path / "profile.json").read_text())
    assert list(kernels) == ["bf16", "tf32", "fp32", *(f"bf16, {update}" for update in UPDATES)]
    assert all(kernels.values())


def test_tuning_times_each_kind_of_update(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed("tune_kernels", monkeypatch, capsys, "--reduced")
    assert any(line.startswith("  loss_backward, 8 tiles, 128 registers: ") for line in lines)
    assert any(line.startswith("  update with its sort, groups of 4 chunks: ") for line in lines)
    for update in UPDATES:
        for what in ("update with its sort", "lookup and interaction"):
            (line,) = [line for line in lines if line.startswith(f"  {what}, {update}: ")]
            assert int(line.rpartition(": ")[2].removesuffix(" us")) > 0


def test_full_tables_are_timed_in_both_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed("time_full_tables", monkeypatch, capsys, "--reduced")
    assert [line.partition(": ")[0] for line in lines if "ms/step" in line] == [
        f"tables of at most 2,000 rows in {precision}, bf16, {ids} ids"
        for precision in ("fp32", "bf16")
        for ids in ("log-uniform", "uniform")
    ]


def test_step_of_dcnv2_is_timed_beside_an_estimate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed("time_dcnv2", monkeypatch, capsys, "--reduced", "--precision=bf16")
    steps = [line.partition(": ")[0] for line in lines if "ms/step" in line]
    assert steps == ["dlrm_dcnv2, tables of at most 2,000 rows in bf16, adagrad, bf16"]
    assert any(line.startswith("update of the tables") for line in lines)


def test_estimate_counts_the_products_and_rows_of_a_step() -> None:
    traffic, workloads = bench_module("dcnv2_traffic"), bench_module("gpu_workload")
    full = workloads.workload_of(DLRM_DCNV2, reduced=False)
    # 96 million floating-point operations per trained sample, and the padding of the dense features
    assert traffic.product_operations(full) / full.batch_size == pytest.approx(96.1e6, rel=2e-3)
    reduced = replace(workloads.workload_of(DLRM_DCNV2, reduced=True), row_limit=2)
    batch = workloads.make_batch(reduced, 0, size=40)
    found = traffic.read_rows(reduced, batch)
    rows, start = [], 0
    for table, count in enumerate(reduced.ids_per_table):
        rows += [(table, int(index)) for index in batch.ids[start : start + 40 * count]]
        start += 40 * count
    assert (found.ids, found.distinct) == (len(rows), len(set(rows)))
    pieces = {(position // traffic.CHUNK, row) for position, row in enumerate(sorted(rows))}
    parts = Counter(row for _, row in pieces)
    assert found.shared_parts == sum(count for count in parts.values() if count > 1)


def run_stages(*arguments: str, out: Path) -> subprocess.CompletedProcess[str]:
    """Run the kit."""
    return subprocess.run(
        [str(ROOT / "bench" / "gpu" / "run.sh"), *arguments],
        env={"PATH": "/usr/bin:/bin", "DLRM_PYTHON": sys.executable, "OUT": str(out), "HOME": str(out)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_stages_run_without_a_gpu_in_their_reduced_form(tmp_path: Path) -> None:
    done = run_stages("--reduced", "reading", "run", "precisions", out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "##### reading: status 0" in done.stdout
    for name in ("run", "precisions"):
        assert f"##### {name}: skipped, it needs a GPU" in done.stdout
    assert "million samples/s" in (tmp_path / "reading.log").read_text()
    assert done.stdout.splitlines()[-1] == "failed: nothing"


@pytest.mark.parametrize("arguments", [[], ["--reduced"], ["tables", "measures"], ["start_of_tables"]])
def test_unknown_stage_is_refused(arguments: list[str], tmp_path: Path) -> None:
    done = run_stages(*arguments, out=tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"run\.sh: error: .*; bench/gpu/run\.sh --help lists them\n", done.stderr)
    assert not (tmp_path / "out").exists()
