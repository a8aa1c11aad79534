"""Matrix products of the CPU's training step, by the library that is fastest there.

oneDNN, through the operator PyTorch's own compiler uses: it adds the bias and takes the ReLU while the result is
in the cache, and uses all of a processor's vector units where the other library's choice depends on the vendor.
Small products go to the other one, whose calls cost less.
"""

from __future__ import annotations

import torch

# Multiplications from which oneDNN is faster.
_LARGE = 1 << 21


def available() -> bool:
    """Return whether PyTorch was built with the operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return `inputs` [B, K] times the transpose of `weight` [N, K]: [B, N]; with `bias` [N], its ReLU with the bias."""
    large = inputs.shape[0] * weight.numel() >= _LARGE
    if large:
        activation = "none" if bias is None else "relu"
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, activation, [], "")
        return product
    if bias is None:
        return torch.mm(inputs, weight.t())
    return torch.addmm(bias, inputs, weight.t()).relu_()


def outer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the sum over samples of `left` [B, N] times `right` [B, K]: the gradient of a weight, [N, K]."""
    if left.dtype == torch.float32 and left.shape[0] * left.shape[1] * right.shape[1] >= _LARGE:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left.t(), right.t(), None, "none", [], "")
        return product
    return torch.mm(left.t(), right)
