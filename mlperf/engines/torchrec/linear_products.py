"""The model's linear layers in float32 on a CPU, with autograd, by the matrix products of the cpu engine.

B samples, T tables, D embedding dimension, N and K widths of a layer's output and input.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import nn

from mlperf.engines.cpu import products
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction


def available(device: torch.device, precision: str) -> bool:
    """Return whether these functions can be used. Other devices and precisions use the model's own."""
    return device.type == "cpu" and precision == "fp32" and products.available()


def bottom(model: DLRM_Net, dense: torch.Tensor) -> torch.Tensor:
    """Return the same as `model.bottom`, float32 [B, D]. dense: [B, K]."""
    return _mlp(list(model.bot_l), dense)


def interact(model: DLRM_Net, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Return the same as `model.interact`, float32 [B, N]. bottom: [B, D]. pooled: [B, T, D]."""
    if isinstance(model.interaction, CrossInteraction):
        return _cross(model.interaction, bottom, pooled)
    return model.interact(bottom, pooled)


def run_top(model: DLRM_Net, interacted: torch.Tensor) -> torch.Tensor:
    """Return the same as `model.run_top`, float32 [B, 1]. interacted: [B, N]."""
    return _mlp(list(model.top_l)[:-1], interacted)


def _mlp(modules: Sequence[nn.Module], values: torch.Tensor) -> torch.Tensor:
    """Return the output of `modules`, in which an activation follows each linear layer, but maybe the last."""
    for layer, activation in zip_longest(modules[::2], modules[1::2]):
        assert isinstance(layer, nn.Linear)
        fused = isinstance(activation, nn.ReLU)
        values = _Linear.apply(values, layer.weight, layer.bias, fused)
        if activation is not None and not fused:
            values = activation(values)
    return values


def _cross(network: CrossInteraction, bottom: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Return the output of the cross network, [B, N]."""
    first = torch.cat((bottom, pooled.flatten(1)), 1)
    crossed = first
    for down, up in network.layers():
        reduced = _Linear.apply(crossed, down.weight, None, False)
        crossed = torch.addcmul(crossed, first, _Linear.apply(reduced, up.weight, up.bias, False))
    return crossed


class _Linear(torch.autograd.Function):
    """Inputs [B, K] times weight [N, K] plus bias [N], or its ReLU: [B, N]."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, with_relu: bool
    ) -> torch.Tensor:
        if bias is None:
            output = products.linear(inputs, weight)
        else:
            output = (products.relu_linear if with_relu else products.biased_linear)(inputs, weight, bias)
        ctx.has_bias, ctx.with_relu = bias is not None, with_relu
        ctx.save_for_backward(inputs, weight, *((output,) if with_relu else ()))
        return output

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None, None]:
        inputs, weight, *outputs = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        if ctx.with_relu:
            gradient = torch.ops.aten.threshold_backward(gradient, outputs[0], 0)
        of_inputs = products.input_gradient(gradient, weight) if ctx.needs_input_grad[0] else None
        of_weight = products.weight_gradient(gradient, inputs, weight)
        return of_inputs, of_weight, gradient.sum(0) if ctx.has_bias else None, None
