"""Each kernel of the GPU engine against PyTorch, and all of them through Triton's compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_models import DEVICE

from mlperf.engines.gpu.kernels.last_layer import loss_backward
from mlperf.engines.gpu.kernels.linear import relu_backward
from mlperf.engines.gpu.kernels.sgd_row_update import update_rows_by_sgd


def drawn(*shape: int) -> torch.Tensor:
    """Return normally distributed values; the same shapes in the same order give the same values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE)


@pytest.mark.parametrize("tiles", [1, 3])
def test_relu_backward_sums_over_any_number_of_tiles(tiles: int) -> None:
    gradient, output, d_bias = drawn(250, 130), drawn(250, 130).relu(), drawn(130)
    expected = gradient * (output > 0)
    expected_bias = d_bias + expected.sum(0)
    relu_backward(gradient=gradient, output=output, d_bias=d_bias, tiles=tiles)
    assert torch.equal(gradient, expected)
    torch.testing.assert_close(d_bias, expected_bias)


@pytest.mark.parametrize("follows_relu", [False, True])
@pytest.mark.parametrize("tiles", [1, 3])
def test_loss_backward_sums_over_any_number_of_tiles(tiles: int, follows_relu: bool) -> None:
    """After a ReLU, the gradient is that of the ReLU's input, and its sums are those of the bias below."""
    before, weight, bias = drawn(250, 24), drawn(1, 20), drawn(1)
    hidden = before.relu() if follows_relu else before
    labels = (drawn(250) > 0).float()
    variables = [value.clone().requires_grad_() for value in (hidden, weight, bias)]
    logits = torch.nn.functional.linear(variables[0][:, :20], variables[1], variables[2]).squeeze(1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    loss.backward()
    d_weight, d_bias, d_hidden_bias = torch.zeros_like(weight), torch.zeros_like(bias), drawn(20)
    bias_before = d_hidden_bias.clone()
    sums = torch.zeros(2, dtype=torch.float64, device=DEVICE)
    d_hidden = loss_backward(
        hidden=hidden,
        weight=weight,
        bias=bias,
        labels=labels,
        d_weight=d_weight,
        d_bias=d_bias,
        d_hidden_bias=d_hidden_bias if follows_relu else None,
        sums=sums,
        loss="bce",
        class_weights=(1.0, 1.0),
        threshold=0.0,
        tiles=tiles,
    )
    expected = [variable.grad for variable in variables if variable.grad is not None]
    expected[0] = expected[0][:, :20]
    if follows_relu:
        expected[0] = expected[0] * (before[:, :20] > 0)
        torch.testing.assert_close(d_hidden_bias - bias_before, expected[0].sum(0), rtol=1e-4, atol=1e-6)
    for gradient, value in zip((d_hidden[:, :20], d_weight, d_bias), expected, strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-4, atol=1e-7)
    assert float(sums[0]) == pytest.approx(250 * loss.item(), rel=1e-5)
    assert int(sums[1]) == int(((logits > 0) == (labels > 0)).sum())


@pytest.mark.parametrize("chunk", [16, 32])
def test_gradients_of_a_very_frequent_row_are_summed(chunk: int) -> None:
    """One row occurs in all samples, so that its run crosses many chunks; other rows share a chunk."""
    samples, table_sizes = 70, (1, 2, 40)
    tables, d_embeddings = drawn(sum(table_sizes), 20), drawn(samples * len(table_sizes), 20)
    stream = torch.Generator().manual_seed(3)
    ids = torch.stack([torch.randint(size, (samples,), generator=stream) for size in table_sizes], 1)
    rows = (ids + torch.tensor([0, 1, 3])).int().to(DEVICE)
    expected = tables.index_add(0, rows.flatten(), d_embeddings, alpha=-0.5)
    rate = torch.tensor(0.5, device=DEVICE)
    update_rows_by_sgd(tables=tables, embedding_rows=rows, d_embeddings=d_embeddings, rate=rate, chunk=chunk)
    torch.testing.assert_close(tables, expected, rtol=1e-5, atol=1e-5)


def test_kernels_compile_once_for_all_batch_sizes_and_for_every_generation_of_gpus(tmp_path: Path) -> None:
    """For compute capabilities 8.0, 9.0 and 10.0; the interpreter also accepts code that does not compile."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_gpu_kernels.py")],
        env={**variables, "PYTHONPATH": str(Path(__file__).parents[1]), "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    kernels = (
        "cross_backward cross_forward decode interact_backward interact loss_backward number_rows pool predict "
        "relu_backward sum_and_update_rows sum_blocks update_rows update_shared_rows update_weights"
    )
    assert report["compiled"] == [f"_{name}_kernel" for name in kernels.split()]
    assert report["compiled again"] == []
