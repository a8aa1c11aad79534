"""Quantize the MLPs after training, for inference: weights in 8 or 16 bits."""

from __future__ import annotations

import io
import warnings

import torch
from torch import nn

from mlperf.models.dlrm import DLRM_Net

_DTYPES = {8: torch.qint8, 16: torch.float16}


def quantize_mlps(model: DLRM_Net, bits: int) -> None:
    """Replace the linear layers by PyTorch's dynamically quantized ones, in place, on the CPU only.

    bits: 8 (int8 weights, dynamically quantized activations) or 16 (float16 weights).
    """
    assert model.tables.device.type == "cpu", "PyTorch's dynamic quantization runs on the CPU only"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module is deprecated in favour of a separate package
        for mlp in (model.bot_l, model.top_l):
            torch.ao.quantization.quantize_dynamic(mlp, {nn.Linear}, _DTYPES[bits], inplace=True)


def mlp_bytes(model: DLRM_Net) -> int:
    """Return the size of both MLPs in a saved file, quantized or not, in bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save([model.bot_l.state_dict(), model.top_l.state_dict()], buffer)
    return buffer.tell()
