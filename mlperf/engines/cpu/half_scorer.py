"""Score batches on the CPU with MLPs and cross network in 16 bits: float16 weights, float32 products.

PyTorch's product (FBGEMM) widens the weights while it computes. It is as fast as one in float32 for large batches,
and faster for small ones, for which the time to read the weights counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from mlperf.engines.cpu.quantized_scorer import QuantizedScorer
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.layers.cross import CrossInteraction
from mlperf.models.layers.mlp import layers_with_weights
from mlperf.models.layers.quantized_linear import float_weight_and_bias

_Layer = Callable[[torch.Tensor], torch.Tensor]


def unavailable() -> str | None:
    """Return why this build of PyTorch has no such product, None if it has."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return "this build of PyTorch has no product of float16 weights (FBGEMM)"
    return None


class HalfScorer(QuantizedScorer):
    """Evaluates a model whose linear layers are quantized to 16 bits. Arguments as for QuantizedScorer."""

    def __init__(self, model: DLRM_Net, ids_per_table: Sequence[int] | None = None) -> None:
        super().__init__(model, ids_per_table)
        self._bottom = [_layer(layer, relu=True) for layer in layers_with_weights(model.bot_l)]
        self._top = [_layer(layer, relu=True) for layer in layers_with_weights(model.top_l)[:-1]]
        self._cross: list[tuple[_Layer, _Layer]] = []
        if isinstance(model.interaction, CrossInteraction):
            layers = zip(model.interaction.V, model.interaction.W, strict=True)
            self._cross = [(_layer(down, relu=False), _layer(up, relu=False)) for down, up in layers]

    def run_bottom(self, dense: torch.Tensor) -> torch.Tensor:
        """Return the output of the bottom MLP, float32 [B, D]."""
        return _run(self._bottom, dense)

    def run_cross(self, joined: torch.Tensor) -> torch.Tensor:
        """Return the output of the cross network, float32 [B, width], for its input."""
        crossed = joined
        for down, up in self._cross:
            crossed = torch.addcmul(crossed, joined, up(down(crossed)))
        return crossed

    def run_top(self, values: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the last layer, float32 [B, N]."""
        return _run(self._top, values)


def _layer(layer: nn.Module, *, relu: bool) -> _Layer:
    """Return a linear layer, with a ReLU or without, as a function."""
    weight, bias = float_weight_and_bias(layer)
    if weight.shape[1] == 0:  # FBGEMM's product without inputs is undefined
        constant = nn.functional.linear(torch.empty(1, 0), weight, bias)
        constant = constant.relu() if relu else constant
        return lambda values: constant.repeat(len(values), 1)
    packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    operators = torch.ops.quantized
    product = operators.linear_relu_dynamic_fp16 if relu else operators.linear_dynamic_fp16
    return lambda values: product(values, packed)


def _run(layers: Sequence[_Layer], values: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        values = layer(values)
    return values
