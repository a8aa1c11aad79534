"""Matrix products of the CPU engine, computed by oneDNN or MKL.

oneDNN, called through the operator that PyTorch's compiler uses, adds the bias and applies the ReLU while the
result is in the cache. Unlike MKL, it uses the full vector width on the CPUs of every vendor.
Small float32 products use MKL, which has a lower call overhead. The choice depends only on the shapes, so runs are
reproducible.
"""

from __future__ import annotations

import torch

# Number of multiplications from which oneDNN is faster in float32.
_LARGE = 1 << 21

# Below this many inputs, oneDNN computes the transposed weight gradient several times faster.
_NARROW = 32


def available() -> bool:
    """Return whether PyTorch was built with the operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _onednn(
    left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none"
) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, activation, [], "")
    return product


def _is_large(samples: int, weight: torch.Tensor) -> bool:
    if not weight.numel():  # a model without dense features, for which oneDNN has no product
        return False
    return weight.dtype != torch.float32 or samples * weight.numel() >= _LARGE


def relu_linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return the ReLU of `inputs` [B, K] times `weight` [N, K] plus `bias` [N]: [B, N]."""
    if _is_large(len(inputs), weight):
        return _onednn(inputs, weight, bias, "relu")
    return torch.addmm(bias, inputs, weight.t()).relu_()


def linear(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return `inputs` [B, K] times `weight` [N, K]: [B, N]."""
    if _is_large(len(inputs), weight):
        return _onednn(inputs, weight)
    return torch.mm(inputs, weight.t())


def biased_linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return `inputs` [B, K] times `weight` [N, K] plus `bias` [N]: [B, N]."""
    if _is_large(len(inputs), weight):
        return _onednn(inputs, weight, bias)
    return torch.addmm(bias, inputs, weight.t())


def input_gradient(
    gradient: torch.Tensor, weight: torch.Tensor, other: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `gradient` [B, N] times `weight` [N, K] plus `other` [B, K]: [B, K]."""
    if other is not None:
        if not _is_large(len(gradient), weight):
            return torch.addmm(other, gradient, weight)
        total: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(gradient, other, weight.t(), None, "add")
        return total
    if _is_large(len(gradient), weight):
        return _onednn(gradient, weight.t())
    return torch.mm(gradient, weight)


def weight_gradient(gradient: torch.Tensor, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the sum over samples of `gradient` [B, N] times `inputs` [B, K]: [N, K], as `weight`."""
    if weight.dtype != torch.float32 or not _is_large(len(inputs), weight):
        return torch.mm(gradient.t(), inputs)
    if inputs.shape[1] < _NARROW:
        return _onednn(inputs.t(), gradient.t()).t().contiguous()
    return _onednn(gradient.t(), inputs.t())
