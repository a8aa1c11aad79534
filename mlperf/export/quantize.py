"""Quantize the MLPs and the cross network after training, for inference: weights in 8 or 16 bits."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.quantized_linear import is_linear, layer_bytes

_CONFIGURATIONS = {
    8: torch.ao.quantization.default_dynamic_qconfig,
    16: torch.ao.quantization.float16_dynamic_qconfig,
}


def quantize_mlps(model: DLRM_Net, bits: int) -> None:
    """Replace the linear layers by PyTorch's dynamically quantized ones, in place, on the CPU only.

    bits: 8 (int8 weights, dynamically quantized activations) or 16 (float16 weights). A layer without inputs, of a
    model without dense features, stays as it is: PyTorch's quantized ones return undefined values.
    """
    assert model.tables.device.type == "cpu", "PyTorch's dynamic quantization runs on the CPU only"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module is deprecated in favour of a separate package
        for layers in _layers(model):
            chosen = {
                name: _CONFIGURATIONS[bits]
                for name, layer in layers.named_modules()
                if isinstance(layer, nn.Linear) and layer.in_features
            }
            torch.ao.quantization.quantize_dynamic(layers, chosen, inplace=True)


def _layers(model: DLRM_Net) -> list[nn.Module]:
    """Return the modules with linear layers."""
    has_weights = isinstance(model.interaction, CrossInteraction)
    return [model.bot_l, *([model.interaction] if has_weights else []), model.top_l]


def mlp_bytes(model: DLRM_Net) -> int:
    """Return the memory of the MLPs and the cross network, quantized or not, in bytes."""
    layers = [layer for part in _layers(model) for layer in part.modules() if is_linear(layer)]
    return sum(layer_bytes(layer) for layer in layers)
