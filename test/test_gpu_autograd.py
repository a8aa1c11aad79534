"""The autograd engine on a GPU gives the losses of the CPU for each kind of model and optimizer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from program import golden_flags, run_program

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU: no GPU found")

MODEL = (
    "--arch-sparse-feature-size=16 --arch-mlp-bot=13-64-16 --arch-mlp-top=32-1 "
    "--arch-embedding-size=1000-300-20-5-1000-300-20-5 --mini-batch-size=128 --data-size=12800 "
    "--num-indices-per-lookup=10 --loss-function=bce --mlp-init=normal --round-targets=true "
    "--learning-rate=0.05 --print-freq=20"
)


@pytest.mark.parametrize(
    "flag",
    [
        "--optimizer=sgd",
        "--optimizer=adagrad",
        "--optimizer=rwsadagrad",
        "--qr-flag",
        "--md-flag",
        "--weighted-pooling=learned",
        "--arch-interaction-op=cat",
        "--mlperf-grad-accum-iter=2",
        "--precision=bf16",
        "--enable-profiling",
        "--save-onnx",
    ],
)
def test_losses_on_a_gpu_equal_those_on_the_cpu(flag: str, tmp_path: Path) -> None:
    on_cpu = run_program(*MODEL.split(), flag, cwd=tmp_path)
    on_gpu = run_program(*MODEL.split(), flag, "--use-gpu", cwd=tmp_path)
    assert (on_cpu.status, on_gpu.status) == (0, 0), on_cpu.stderr + on_gpu.stderr
    assert len(on_gpu.losses) == 5
    assert on_gpu.losses == pytest.approx(on_cpu.losses, rel=2e-2 if flag == "--precision=bf16" else 1e-3)


def test_a_checkpoint_of_a_gpu_scores_alike_on_the_cpu(terabyte: Path, tmp_path: Path) -> None:
    flags = golden_flags("sgd", terabyte)
    trained = run_program(*flags, "--use-gpu", "--save-model=model.pt", cwd=tmp_path)
    assert trained.status == 0, trained.stderr
    scores = []
    for device in ([], ["--use-gpu"]):
        run = run_program(*flags, *device, "--load-model=model.pt", "--inference-only", cwd=tmp_path)
        assert run.status == 0, run.stderr
        scores.append([float(number) for number in re.findall(r"\d+\.\d+", run.metric_lines[-1])])
    assert scores[0], "no metrics were printed"
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)
