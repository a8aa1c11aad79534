"""The products of the cpu engine in the step of several processes, compared with those of the model."""

from __future__ import annotations

import pytest
import torch

from mlperf.engines.cpu import products
from mlperf.engines.torchrec import linear_products
from mlperf.models.dlrm import DLRM_Net
from mlperf.settings.model import Architecture

CPU = torch.device("cpu")


def gradients(model: DLRM_Net, logits: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return the gradients of the inputs and of all dense parameters."""
    return list(torch.autograd.grad(logits.square().sum(), [inputs, *model.dense_parameters()]))


@pytest.mark.parametrize("samples", [3, 2048])  # by MKL, and by oneDNN from 2^21 multiplications on
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("interaction", ["dot", "cat", "dcn"])
def test_logits_and_gradients_are_those_of_the_model(interaction: str, activation: str, samples: int) -> None:
    torch.manual_seed(1)
    architecture = Architecture(
        (5, 4, 3), 32, (13, 40, 32), (48, 33, 1), interaction_op=interaction, activation=activation, cross_rank=16
    )
    model = DLRM_Net(architecture, CPU)
    for parameter in model.dense_parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    dense, pooled = torch.randn(samples, 13), torch.randn(samples, 3, 32, requires_grad=True)
    expected = model.logits(dense, pooled)
    interacted = linear_products.interact(model, linear_products.bottom(model, dense), pooled)
    found = linear_products.run_top(model, interacted)
    assert found.shape == (samples, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for own, other in zip(gradients(model, found, pooled), gradients(model, expected, pooled), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize(
    ("device", "precision", "used"), [("cpu", "fp32", True), ("cpu", "bf16", False), ("cuda", "fp32", False)]
)
def test_only_float32_on_a_cpu_uses_them(device: str, precision: str, used: bool) -> None:
    assert linear_products.available(torch.device(device), precision) is (used and products.available())
