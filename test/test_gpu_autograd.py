"""The autograd engine on a GPU gives the losses of the CPU for each kind of model and optimizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from program import run_program

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
        "--save-model=model.pt",
    ],
)
def test_losses_on_a_gpu_equal_those_on_the_cpu(flag: str, tmp_path: Path) -> None:
    on_cpu = run_program(*MODEL.split(), flag, cwd=tmp_path)
    on_gpu = run_program(*MODEL.split(), flag, "--use-gpu", cwd=tmp_path)
    assert (on_cpu.status, on_gpu.status) == (0, 0), on_cpu.stderr + on_gpu.stderr
    assert len(on_gpu.losses) == 5
    assert on_gpu.losses == pytest.approx(on_cpu.losses, rel=2e-2 if flag == "--precision=bf16" else 1e-3)
