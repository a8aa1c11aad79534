"""Layers with weights and inputs in 8 bits on the CPU, for inference.

PyTorch's int8 matrix product (oneDNN) computes exact int32 sums; one loop turns the sums of a layer into the codes
of the next layer's inputs. Each sample has a scale of its own, so its prediction does not depend on the other
samples of its batch.

B samples, K inputs of a layer, N outputs, C codes of a row, which are N or K rounded up to whole groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import llvmlite.binding
import torch
from torch import nn

from mlperf.engines.cpu.loops import quantized_layers
from mlperf.engines.cpu.loops.codes import padded_codes
from mlperf.models.layers.quantized_linear import weight_and_bias

# Below this many samples, a product for each is faster: a larger product rearranges the weights first.
_FEW = 4

# Up to this many samples, a loop takes less time than to start the other threads.
_ALONE = 16


@cache
def unavailable() -> str | None:
    """Return why products of int8 matrices are not exact or slow in this process, None if they are not."""
    features = llvmlite.binding.get_host_cpu_features()
    if not features.get("avx512vnni") and not features.get("avxvnni"):
        return "the CPU has no instructions for products in 8 bits (VNNI)"
    for samples in (1, 64):
        codes, weights = (torch.full((rows, 64), -128, dtype=torch.int8) for rows in (samples, 16))
        if not bool((torch._int_mm(codes, weights.t()) == 64 * 128 * 128).all()):
            return "PyTorch's products in 8 bits are not exact on this CPU"
    return None


@dataclass(frozen=True)
class Codes:
    """Codes of a batch: int8 [capacity, C] with scale and offset of each sample, float32 [capacity, 2]."""

    codes: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def empty(cls, capacity: int, width: int) -> Codes:
        """Return memory for the codes of `capacity` rows of `width` values."""
        return cls(torch.empty(capacity, padded_codes(width), dtype=torch.int8), torch.empty(capacity, 2))


class Encoder:
    """Turns float32 values [B, K] into codes."""

    def __init__(self, outputs: Codes, width: int) -> None:
        self._outputs = outputs  # kept alive
        self._loop = quantized_layers.encode().prepare(
            codes=outputs.codes.data_ptr(),
            scales=outputs.scales.data_ptr(),
            width=width,
            stride=outputs.codes.shape[1],
        )

    def run(self, values: torch.Tensor) -> None:
        """Write the codes of `values`, float32 [B, K]."""
        args = self._loop.args
        args.values, args.samples = values.data_ptr(), len(values)
        if len(values) <= _ALONE:
            self._loop.run_alone()
        else:
            self._loop.run()


class Int8Layer:
    """A linear layer whose weight is a quantized tensor, or one without inputs.

    inputs: codes of K values. outputs: where the codes of the results are written; None if only values are needed.
    values: float32 [capacity, N], written; if there are outputs, one row for each thread is enough.
    products: int32 memory of at least capacity * N values, which all layers share. relu: whether a ReLU follows.
    crossed: of an upper layer of a cross network, the inputs x0 and x of its cross layer, float32 [capacity, N];
    the results are then x0 * (linear layer) + x, and both codes and values are written.
    """

    def __init__(
        self,
        layer: nn.Module,
        inputs: Codes,
        outputs: Codes | None,
        values: torch.Tensor,
        products: torch.Tensor,
        *,
        relu: bool = False,
        crossed: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        weight, bias = weight_and_bias(layer)
        self._width, fan_in = weight.shape
        codes = torch.zeros(self._width, inputs.codes.shape[1], dtype=torch.int8)
        if fan_in:
            codes[:, :fan_in] = weight.int_repr()
        self._weight = codes.t()  # (C, N), in the order in which the product of one sample reads it
        scale = float(weight.q_scale()) if fan_in else 0.0
        self._column_sums = scale * codes.sum(1, dtype=torch.int64).float()
        self._bias = torch.zeros(self._width) if bias is None else bias.contiguous()
        self._inputs, self._products = inputs.codes, products
        self._kept = (inputs, outputs, values, crossed)
        loop = quantized_layers.decode() if crossed is None else quantized_layers.decode_crossed()
        self._decode = loop.prepare(
            products=products.data_ptr(),
            scales=inputs.scales.data_ptr(),
            weight_scale=scale,
            column_sums=self._column_sums.data_ptr(),
            bias=self._bias.data_ptr(),
            values=values.data_ptr(),
            codes=0 if outputs is None else outputs.codes.data_ptr(),
            new_scales=0 if outputs is None else outputs.scales.data_ptr(),
            x0=0 if crossed is None else crossed[0].data_ptr(),
            x=0 if crossed is None else crossed[1].data_ptr(),
            width=self._width,
            stride=0 if outputs is None else outputs.codes.shape[1],
            relu=relu,
        )
        self._run_decode = self._decode.run
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []  # codes and products

    def resize(self, samples: int) -> None:
        """Set the number of samples of the following calls of `run`."""
        codes = self._inputs[:samples]
        products = self._products[: samples * self._width].view(samples, self._width)
        self._parts = [(codes, products)]
        if samples < _FEW:
            self._parts = list(zip(codes.split(1), products.split(1), strict=True))
        self._decode.args.samples = samples
        self._run_decode = self._decode.run_alone if samples <= _ALONE else self._decode.run

    def run(self) -> None:
        """Compute the results."""
        for codes, products in self._parts:
            torch._int_mm(codes, self._weight, out=products)
        self._run_decode()
