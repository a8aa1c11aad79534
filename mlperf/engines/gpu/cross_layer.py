"""A layer of the cross network on the GPU. B samples, N values per sample, r rank."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mlperf.engines.gpu.kernels.cross import cross_backward, cross_forward
from mlperf.engines.gpu.kernels.weight_update import DenseParameter
from mlperf.engines.gpu.layer import sums_of_squares
from mlperf.engines.layerwise import CrossValues
from mlperf.optim.optimizer import Optimizer


class GpuCrossLayer:
    """x0 * up + x with down = V x and up = W down + b: products by cuBLAS, everything else in one kernel.

    down, up: the linear layers V, [N] -> [r], and W, [r] -> [N]. The model's weights are float32; the products use
    copies in `dtype`. is_first, is_last: position among the layers of the network.
    """

    def __init__(
        self, down: nn.Linear, up: nn.Linear, dtype: torch.dtype, *, is_first: bool, is_last: bool
    ) -> None:
        self._parameters = (down.weight, up.weight, up.bias)
        self.down_weight, self.up_weight, self.bias = (parameter.data for parameter in self._parameters)
        self._is_first, self._is_last = is_first, is_last
        self._down_copy = torch.empty_like(self.down_weight, dtype=dtype)
        self._up_copy = torch.empty_like(self.up_weight, dtype=dtype)
        self._bias_copy = torch.empty_like(self.bias, dtype=dtype)
        self._d_down, self._d_up = torch.empty_like(self._down_copy), torch.empty_like(self._up_copy)
        self._d_bias = torch.zeros_like(self.bias)
        self.copy_weights()

    def copy_weights(self) -> None:
        """Refresh the copies after the model's weights were changed externally."""
        self._down_copy.copy_(self.down_weight)
        self._up_copy.copy_(self.up_weight)
        self._bias_copy.copy_(self.bias)

    def forward(self, x0: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, CrossValues]:
        """Return the output [B, N], and what the backward pass needs."""
        down = x @ self._down_copy.t()
        up = torch.addmm(self._bias_copy, down, self._up_copy.t())
        return cross_forward(x0=x0, up=up, x=x), CrossValues(x, up, down)

    def backward(
        self,
        gradient: torch.Tensor,
        x0: torch.Tensor,
        values: CrossValues,
        d_x0: torch.Tensor,
        rate: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the gradients of the layer and return that of x.

        gradient: [B, N], gradient of the output; overwritten, as is `values.up`.
        d_x0: [B, N], gradient of `x0` from the layers above, to which that of this layer is added; the last layer
            overwrites it. The first layer, whose x is `x0`, adds that of x too and returns `d_x0`.
        rate: not needed; all layers are updated together at the end of the step.
        """
        up = values.up
        cross_backward(
            gradient=gradient,
            x0=x0,
            up=up,
            d_x0=d_x0,
            d_bias=self._d_bias,
            overwrites=self._is_last,
            adds_gradient=self._is_first,
        )
        torch.mm(up.t(), values.down, out=self._d_up)
        d_down = up @ self._up_copy
        torch.mm(d_down.t(), values.x, out=self._d_down)
        d_x = d_x0 if self._is_first else gradient
        return d_x.addmm_(d_down, self._down_copy)

    def parameters(self, optimizer: Optimizer) -> Iterator[DenseParameter]:
        """Yield the weights and the bias, and what their update by `optimizer` needs."""
        squares = [sums_of_squares(optimizer, parameter) for parameter in self._parameters]
        yield DenseParameter(self.down_weight, self._d_down, False, self._down_copy, squares[0])
        yield DenseParameter(self.up_weight, self._d_up, False, self._up_copy, squares[1])
        yield DenseParameter(self.bias, self._d_bias, True, self._bias_copy, squares[2])
