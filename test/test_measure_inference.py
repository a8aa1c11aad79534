"""bench/measure_inference.py: what it measures, and how it lets samples arrive."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_modules import bench_module, printed
from small_runs import train

from mlperf.util.errors import UsageError

REDUCED = ("--reduced", "--shapes=Kaggle", "--seconds=0.01")


def measure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    """Return the lines that the script prints."""
    return printed("measure_inference", monkeypatch, capsys, *flags)


def rows(lines: list[str]) -> dict[str, list[str]]:
    """Return the cells of the last row of each contender."""
    named = [line for line in lines if line.startswith("  ") and line[2:44].strip()]
    return {line[2:44].strip(): line[44:].split() for line in named}


def test_every_program_is_timed_and_scores_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = measure(monkeypatch, capsys, *REDUCED, "--variants=fp32,fp32-4,int8", "--batch-sizes=1,64")
    assert [line for line in lines if line.startswith("batch")] == ["batch size 1", "batch size 64"]
    found = rows(lines)
    variants = ("fp32", "fp32, tables in 4 bits", "int8")
    programs = [f"{program} {variant}" for program in ("this project", "PyTorch") for variant in variants]
    programs += ["onnxruntime fp32", "onnxruntime int8"]
    assert set(found) == {*programs, *(f"floor {variant}" for variant in variants)}
    for name in programs:
        p50, p95, p99, rate, *_, difference = found[name]
        assert 0 < float(p50) <= float(p95) <= float(p99)
        assert float(rate.replace(",", "")) > 0
        is_exact = name.endswith("fp32")
        assert float(difference) <= (1e-6 if is_exact else 0.05)
        assert is_exact or float(difference) > 1e-6


def test_cross_network_with_several_ids_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--reduced", "--shapes=DCNv2", "--seconds=0.01", "--variants=bf16,fp32-8", "--batch-sizes=4")
    found = rows(measure(monkeypatch, capsys, *flags))
    assert len(found) == 6
    assert float(found["PyTorch fp32, tables in 8 bits"][-1]) < 1e-3


def test_offline_scenario_prints_the_throughput(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = measure(monkeypatch, capsys, *REDUCED, "--variants=fp32-8", "--scenario=offline", "--batch-sizes=1,64")
    rate, size, of_first = rows(lines)["this project fp32, tables in 8 bits"]
    assert float(rate.replace(",", "")) > 0
    assert size == "64"
    assert of_first == "1.00"


def test_server_scenario_prints_latencies_and_the_highest_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--variants=bf16", "--scenario=server", "--rate=100,2000", "--latency-bound=1000")
    lines = measure(monkeypatch, capsys, *REDUCED, *flags)
    titles = [line for line in lines if line.startswith("server")]
    assert titles[0] == "server: 100 samples/s arrive, at most 64 are scored together"
    assert titles[2] == "server: highest rate whose 99th percentile is at most 1000 ms"
    assert float(rows(lines)["this project bf16"][0].replace(",", "")) > 0


def test_model_of_a_checkpoint_scores_its_test_split(
    terabyte: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(terabyte, tmp_path, "--num-batches=3", "--save-model=own.pt")
    flags = (f"--load-model={tmp_path / 'own.pt'}", f"--data={terabyte}", "--variants=bf16,fp32-8")
    lines = measure(monkeypatch, capsys, *flags, "--batch-sizes=2,65536", "--seconds=0.01", "--max-batch=1")
    assert lines[1] == str(tmp_path / "own.pt")
    assert "this project fp32, tables in 8 bits" in rows(lines)
    assert any(line.startswith("batch size 65,536: not measured: there are only ") for line in lines)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--load-model=x.pt"], "--load-model and --data belong together"),
        (["--load-model=x.pt", "--data=x", "--shapes=Kaggle"], "--shapes cannot be combined with --load-model"),
        (["--rate=5"], "--rate requires --scenario=server"),
        (["--latency-bound=5"], "--latency-bound requires --scenario=server"),
        (["--variants=fp64"], "--variants=fp64: 'fp64' is unknown"),
        (["--shapes=Kegel"], "--shapes=Kegel: 'Kegel' is unknown"),
        (["--batch-sizes=0"], "--batch-sizes"),
        (["--scenario=server", "--rate=-1"], "--rate"),
    ],
)
def test_wrong_call_is_refused_by_name(
    flags: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=re.escape(named)):
        measure(monkeypatch, capsys, *flags)


class Slow:
    """A contender that takes the same time for every batch."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.sizes: list[int] = []

    def inputs(self, start: int, size: int) -> int:
        assert 0 <= start <= 1000 - size
        return size

    def score(self, size: int) -> torch.Tensor:
        self.sizes.append(size)
        time.sleep(self._seconds)
        return torch.zeros(size)


def test_samples_that_arrive_during_a_batch_are_scored_together() -> None:
    serve = bench_module("inference_scenarios").serve
    slow = Slow(0.01)
    served = serve(slow, 1000, rate=1000, seconds=0.3, max_batch=64)
    assert served.waiting == 0
    assert len(served.values) == 300
    assert served.values.min() >= 0.01
    assert 2 < served.batch < 64
    assert max(slow.sizes) <= 64


def test_load_that_is_too_high_leaves_samples_waiting() -> None:
    served = bench_module("inference_scenarios").serve(Slow(0.01), 1000, rate=2000, seconds=0.1, max_batch=2)
    assert served.waiting > 0
    assert served.samples_per_second <= 201
    assert served.percentile(99) > served.percentile(50)


def test_highest_rate_is_found_by_bisection() -> None:
    highest_rate = bench_module("inference_scenarios").highest_rate
    assert highest_rate(lambda rate: rate <= 300, 1000, 10) == pytest.approx(300, abs=1)
    assert highest_rate(lambda rate: False, 1000, 10) == 0


def test_latencies_of_functions_that_take_turns_are_their_own() -> None:
    latencies = bench_module("inference_scenarios").call_latencies
    found = latencies({"fast": lambda: None, "slow": lambda: time.sleep(0.002)}, 0.05)
    assert np.median(found["fast"]) < 0.001
    assert np.median(found["slow"]) >= 0.002
