"""Linear layers quantized by PyTorch (`mlperf.export.quantize`): their weights."""

from __future__ import annotations

import torch
from torch import nn


def is_linear(layer: nn.Module) -> bool:
    """Return whether a module is a linear layer, quantized or not."""
    return isinstance(layer, nn.Linear | torch.ao.nn.quantized.dynamic.Linear)


def layer_bytes(layer: nn.Module) -> int:
    """Return the memory of weight and bias in bytes."""
    weight, bias = weight_and_bias(layer)
    stored = weight.dtype
    if isinstance(layer, torch.ao.nn.quantized.dynamic.Linear):
        stored = layer._packed_params.dtype
    return weight.numel() * stored.itemsize + (0 if bias is None else bias.nbytes)


def weight_and_bias(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight [N, K] and the bias, float32 [N] or None, of a linear layer, quantized or not.

    The weight is float32; of a layer in 8 bits, a quantized tensor of int8 values and their scale.
    """
    if isinstance(layer, nn.Linear):
        return layer.weight.data, None if layer.bias is None else layer.bias.data
    assert isinstance(layer, torch.ao.nn.quantized.dynamic.Linear)
    bias = layer.bias()
    return layer.weight(), None if bias is None else bias.detach()


def float_weight_and_bias(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return weight and bias as `weight_and_bias`, both in float32."""
    weight, bias = weight_and_bias(layer)
    return weight.dequantize() if weight.is_quantized else weight, bias
