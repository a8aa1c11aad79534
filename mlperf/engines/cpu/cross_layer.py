"""A layer of the low-rank cross network on the CPU."""

from __future__ import annotations

import torch
from torch import nn

from mlperf.engines.cpu import products
from mlperf.engines.cpu.layer import TrainedWeight, adagrad_arguments
from mlperf.engines.cpu.loops import cross
from mlperf.engines.cpu.workspace import Workspace
from mlperf.engines.layerwise import CrossValues
from mlperf.optim.optimizer import Optimizer


class CpuCrossLayer:
    """x0 * (W (V x) + b) + x. Weights and bias are float32; the matrix products are in `dtype`.

    down, up: V and W. optimizer: of the model; None if the layer is not trained. workspace: shared by all layers.
    number: of the layer, from 0. layers: number of layers. The backward pass of the last one comes first and
    writes the gradient of x0, to which the others add.
    """

    def __init__(
        self,
        down: nn.Linear,
        up: nn.Linear,
        dtype: torch.dtype,
        optimizer: Optimizer | None,
        workspace: Workspace,
        *,
        number: int,
        layers: int,
    ) -> None:
        self.down_weight, self.up_weight, self.bias = down.weight.data, up.weight.data, up.bias.data
        self._down, self._up = (
            TrainedWeight(down.weight, dtype, optimizer),
            TrainedWeight(up.weight, dtype, optimizer),
        )
        self._workspace, self._is_first = workspace, number == 0
        self._crossed = f"crossed {number}"
        width, is_bfloat16 = len(self.bias), dtype == torch.bfloat16
        self._forward = cross.cross_forward().prepare(width=width, bfloat16=is_bfloat16)
        self._backward = self._sum = None
        if optimizer is not None:
            self._sum = cross.gradient_sum().prepare() if number == 0 and is_bfloat16 else None
            self._backward = cross.cross_backward().prepare(
                **adagrad_arguments(optimizer, up.bias, "bias_sums"),
                bias=self.bias.data_ptr(),
                width=width,
                overwrite=number == layers - 1,
                bfloat16=is_bfloat16,
            )

    def forward(self, x0: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, CrossValues]:
        """Return the output [B, N], and what the backward pass needs."""
        down = products.linear(x, self._down.copy)
        up = products.biased_linear(down, self._up.copy, self.bias.to(x.dtype))
        crossed = self._workspace.take(self._crossed, x.shape, x.dtype)
        args = self._forward.args
        args.x0, args.x, args.up, args.crossed = x0.data_ptr(), x.data_ptr(), up.data_ptr(), crossed.data_ptr()
        args.samples = len(x)
        self._forward.run()
        return crossed, CrossValues(x, up, down)

    def backward(
        self, gradient: torch.Tensor, x0: torch.Tensor, values: CrossValues, d_x0: torch.Tensor, rate: float
    ) -> torch.Tensor:
        """Update the layer, add the gradient of `x0` to `d_x0`, float32 [B, N], and return that of x [B, N].

        The first layer adds both to `d_x0` and returns it. gradient: [B, N], gradient of the output.
        """
        assert self._backward is not None
        x, up = values.x, values.up
        d_up = self._workspace.take("up gradient", x.shape, x.dtype)
        args = self._backward.args
        args.gradient, args.x0, args.up = gradient.data_ptr(), x0.data_ptr(), up.data_ptr()
        args.d_up, args.d_x0 = d_up.data_ptr(), d_x0.data_ptr()
        args.samples, args.rate = len(x), rate
        self._backward.run()
        d_down = products.input_gradient(d_up, self._up.copy)
        self._up.update(d_up, values.down, rate)
        d_x = products.input_gradient(d_down, self._down.copy, gradient)
        self._down.update(d_down, x, rate)
        return self._summed(d_x0, d_x) if self._is_first else d_x

    def _summed(self, d_x0: torch.Tensor, d_x: torch.Tensor) -> torch.Tensor:
        if self._sum is None:
            return d_x0.add_(d_x)
        args = self._sum.args
        args.total, args.gradient, args.count = d_x0.data_ptr(), d_x.data_ptr(), d_x.numel()
        self._sum.run()
        return d_x0
