"""The autograd engine on a GPU gives the losses of the CPU for each kind of model, optimizer and data."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from program import ROOT, run_program

from mlperf.data.batch import Batch
from mlperf.engines.autograd.step import AutogradStep
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.loss import Loss
from mlperf.optim.optimizer import make_optimizer
from mlperf.registry import OPTIMIZERS
from mlperf.settings.model import Architecture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU: no GPU found")

MODEL = (
    "--arch-sparse-feature-size=16 --arch-mlp-bot=13-64-16 --arch-mlp-top=32-1 "
    "--arch-embedding-size=1000-300-20-5-1000-300-20-5 --mini-batch-size=128 --data-size=12800 "
    "--num-indices-per-lookup=10 --loss-function=bce --mlp-init=normal --round-targets=true "
    "--learning-rate=0.05 --print-freq=20"
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--qr-flag",
        "--qr-flag --qr-operation=add",
        "--qr-flag --qr-operation=concat --arch-mlp-bot=13-64-32",
        "--md-flag",
        "--weighted-pooling=fixed",
        "--weighted-pooling=learned",
        "--embedding-precision=bf16",
        "--embedding-precision=fp16",
        "--mlperf-grad-accum-iter=3",
    ],
)
def test_losses_of_tables_and_optimizers_equal_those_on_the_cpu(
    flags: str, optimizer: str, tmp_path: Path
) -> None:
    compare(f"{flags} --optimizer={optimizer}", tmp_path, rel=1e-3)


@pytest.mark.parametrize(
    "flags",
    [
        "--arch-interaction-op=cat",
        "--arch-interaction-op=sum",
        "--arch-interaction-itself",
        "--activation-function=tanh",
        "--activation-function=sigmoid",
        "--loss-function=mse",
        "--loss-function=wbce --loss-weights=0.5-2",
        "--loss-threshold=0.1",
        "--num-indices-per-lookup=1",
        "--num-indices-per-lookup-fixed",
        "--rand-data-dist=gaussian",
        f"--data-generation=synthetic --arch-embedding-size=9-9-9 --data-trace-file={ROOT}/input/dist_emb_j.log",
        "--lr-num-warmup-steps=30 --lr-decay-start-step=40 --lr-num-decay-steps=50",
        "--enable-profiling",
    ],
)
def test_losses_of_other_flags_equal_those_on_the_cpu(flags: str, tmp_path: Path) -> None:
    compare(flags, tmp_path, rel=1e-3)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_losses_in_lower_precision_are_close_to_those_in_float32(precision: str, tmp_path: Path) -> None:
    compare("", tmp_path, f"--precision={precision}", rel=2e-2)


def compare(flags: str, folder: Path, *gpu_flags: str, rel: float) -> None:
    """Train with the same flags on both devices, and compare the losses."""
    on_cpu = run_program(*MODEL.split(), *flags.split(), cwd=folder)
    on_gpu = run_program(*MODEL.split(), *flags.split(), "--use-gpu", *gpu_flags, cwd=folder)
    assert (on_cpu.status, on_gpu.status) == (0, 0), on_cpu.stderr + on_gpu.stderr
    assert "engine: autograd on the GPU" in on_gpu.stderr
    assert len(on_gpu.losses) == 5
    assert on_gpu.losses == pytest.approx(on_cpu.losses, rel=rel)


def test_rows_beyond_2_31_elements_are_read_and_updated() -> None:
    """The first, a middle and the last row of a block of 9.7 GB, and of as many sums of Adagrad."""
    if torch.cuda.mem_get_info()[0] < 30e9:
        pytest.skip("needs 30 GB of free GPU memory")
    for optimizer, several in product(OPTIMIZERS, (False, True)):
        update_distant_rows(optimizer, several)
        torch.cuda.empty_cache()  # for the tests that run at the same time


def update_distant_rows(optimizer: str, several: bool) -> None:
    rows, dimension, value = (1 << 24) + (1 << 21), 128, 0.01
    model = DLRM_Net(Architecture((rows,), dimension, (4, dimension), (1,)), torch.device("cuda"))
    assert isinstance(model.tables, FlatTables)
    weight = model.tables.weight
    assert weight.numel() > 2**31
    for tensor in (weight, *(parameter.data for parameter in model.dense_parameters())):
        tensor.fill_(value)
    step = AutogradStep(model, Loss("bce"), make_optimizer(optimizer, model), "fp32")
    ids = torch.tensor([0, rows // 2, rows - 1])
    offsets = torch.arange(3).view(1, 3) if several else None
    step.train(Batch(torch.ones(3, 4), ids if several else ids.view(1, 3), offsets, torch.ones(3, 1)), 0.1)
    changed = weight[ids.cuda()].cpu()
    assert changed.ne(value).all()
    torch.testing.assert_close(changed[1:], changed[:1].expand(2, -1))
    assert sum(int(part.ne(value).any(1).sum()) for part in weight.split(1 << 21)) == 3
