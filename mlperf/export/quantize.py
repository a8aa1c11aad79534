"""Quantize the MLPs and the cross network after training, for inference: weights in 8 or 16 bits."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction

_DTYPES = {8: torch.qint8, 16: torch.float16}


def quantize_mlps(model: DLRM_Net, bits: int) -> None:
    """Replace the linear layers by PyTorch's dynamically quantized ones, in place, on the CPU only.

    bits: 8 (int8 weights, dynamically quantized activations) or 16 (float16 weights).
    """
    assert model.tables.device.type == "cpu", "PyTorch's dynamic quantization runs on the CPU only"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module is deprecated in favour of a separate package
        for layers in _layers(model):
            torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}, _DTYPES[bits], inplace=True)


def _layers(model: DLRM_Net) -> list[nn.Module]:
    """Return the modules with linear layers."""
    has_weights = isinstance(model.interaction, CrossInteraction)
    return [model.bot_l, *([model.interaction] if has_weights else []), model.top_l]


def mlp_bytes(model: DLRM_Net) -> int:
    """Return the size of the MLPs and the cross network in a saved file, quantized or not, in bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save([layers.state_dict() for layers in _layers(model)], buffer)
    return buffer.tell()
