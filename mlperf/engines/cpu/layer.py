"""The layers of the MLPs on the CPU."""

from __future__ import annotations

import torch
from torch import nn

from mlperf.engines.cpu import products
from mlperf.engines.cpu.loops import mlp
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer


class TrainedWeight:
    """The weight of a linear layer, float32 [N, K], updated from the gradients of the layer.

    copy: the weight in `dtype`, for the products; the weight itself in float32. optimizer: of the model; None
    if the layer is not trained.
    """

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype, optimizer: Optimizer | None = None) -> None:
        self.copy = weight.data.to(dtype)
        self._update = mlp.weight_update().prepare(
            **adagrad_arguments(optimizer, weight, "sums"),
            weights=weight.data_ptr(),
            copies=self.copy.data_ptr(),
            count=weight.numel(),
            bfloat16=dtype == torch.bfloat16,
        )

    def update(self, gradient: torch.Tensor, inputs: torch.Tensor, rate: float) -> None:
        """Update the weight by `gradient` [B, N], that of the layer's output, and its `inputs` [B, K]."""
        weight_gradient = products.weight_gradient(gradient, inputs, self.copy)
        self._update.args.gradients, self._update.args.rate = weight_gradient.data_ptr(), rate
        self._update.run()


class CpuLayer:
    """weight [N, K] and bias [N] are float32; the matrix products are in `dtype`.

    optimizer: of the model; None if the layer is not trained.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, optimizer: Optimizer | None = None) -> None:
        self.weight, self.bias = linear.weight.data, linear.bias.data
        self._product = TrainedWeight(linear.weight, dtype, optimizer)
        self._relu_backward = mlp.relu_backward().prepare(
            **adagrad_arguments(optimizer, linear.bias, "bias_sums"),
            bias=self.bias.data_ptr(),
            width=len(self.bias),
            bfloat16=dtype == torch.bfloat16,
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output [B, N] for `inputs` [B, K]."""
        return products.relu_linear(inputs, self._product.copy, self.bias.to(inputs.dtype))

    def backward(
        self,
        gradient: torch.Tensor,
        output: torch.Tensor,
        inputs: torch.Tensor,
        rate: float,
        *,
        needs_input_grad: bool,
    ) -> torch.Tensor:
        """Update the layer and return the gradient of `inputs` [B, K]; undefined if `needs_input_grad` is False.

        gradient: [B, N], gradient of `output`; overwritten with the gradient of the pre-activation.
        """
        args = self._relu_backward.args
        args.gradient, args.output = gradient.data_ptr(), output.data_ptr()
        args.samples, args.rate = len(gradient), rate
        self._relu_backward.run()
        weight = self._product
        input_gradient = products.input_gradient(gradient, weight.copy) if needs_input_grad else gradient
        weight.update(gradient, inputs, rate)
        return input_gradient


class LastLayerUpdater:
    """Updates the last layer of the top MLP, float32, from its gradients."""

    def __init__(self, linear: nn.Linear, optimizer: Optimizer) -> None:
        self._weight, self._bias = linear.weight.data.view(-1), linear.bias.data
        self._adagrad = isinstance(optimizer, Adagrad)
        self._updates = [
            mlp.weight_update().prepare(
                **adagrad_arguments(optimizer, parameter, "sums"),
                weights=parameter.data_ptr(),
                count=parameter.numel(),
            )
            for parameter in (linear.weight, linear.bias)
        ]

    def update(self, gradients: torch.Tensor, rate: float) -> None:
        """Update weight and bias. gradients: float64 [N + 1], the bias last."""
        if not self._adagrad:
            self._weight.add_(gradients[:-1], alpha=-rate)
            self._bias.add_(gradients[-1], alpha=-rate)
            return
        rounded = gradients.float()
        for update, own in zip(self._updates, (rounded, rounded[-1:]), strict=True):
            update.args.gradients, update.args.rate = own.data_ptr(), rate
            update.run()


def adagrad_arguments(optimizer: Optimizer | None, parameter: torch.Tensor, name: str) -> dict[str, int | float]:
    """Return the arguments that a loop needs for Adagrad; none for SGD. name: that of the sums of `parameter`."""
    if not isinstance(optimizer, Adagrad):
        return {}
    return {name: optimizer.sums_of(parameter).data_ptr(), "epsilon": optimizer.epsilon}
