"""A linear layer and its ReLU on the CPU."""

from __future__ import annotations

import torch
from torch import nn

from mlperf.engines.cpu import products
from mlperf.engines.cpu.loops import mlp
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer


class CpuLayer:
    """weight [N, K] and bias [N] are float32; the matrix products are in `dtype`.

    optimizer: of the model; None if the layer is not trained.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, optimizer: Optimizer | None = None) -> None:
        self.weight, self.bias = linear.weight.data, linear.bias.data
        is_bfloat16 = dtype == torch.bfloat16
        self._copy = self.weight.to(dtype)  # the weight itself in float32
        self._relu_backward = mlp.relu_backward().prepare(
            **_adagrad_arguments(optimizer, linear.bias, "bias_sums"),
            bias=self.bias.data_ptr(),
            width=len(self.bias),
            bfloat16=is_bfloat16,
        )
        self._weight_update = mlp.weight_update().prepare(
            **_adagrad_arguments(optimizer, linear.weight, "sums"),
            weights=self.weight.data_ptr(),
            copies=self._copy.data_ptr(),
            count=self.weight.numel(),
            bfloat16=is_bfloat16,
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output [B, N] for `inputs` [B, K]."""
        return products.relu_linear(inputs, self._copy, self.bias.to(inputs.dtype))

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
        input_gradient = products.input_gradient(gradient, self._copy) if needs_input_grad else gradient
        weight_gradient = products.weight_gradient(gradient, inputs, self._copy)
        self._weight_update.args.gradients, self._weight_update.args.rate = weight_gradient.data_ptr(), rate
        self._weight_update.run()
        return input_gradient


class LastLayerUpdater:
    """Updates the last layer of the top MLP, float32, from its gradients."""

    def __init__(self, linear: nn.Linear, optimizer: Optimizer) -> None:
        self._weight, self._bias = linear.weight.data.view(-1), linear.bias.data
        self._adagrad = isinstance(optimizer, Adagrad)
        self._updates = [
            mlp.weight_update().prepare(
                **_adagrad_arguments(optimizer, parameter, "sums"),
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


def _adagrad_arguments(optimizer: Optimizer | None, parameter: torch.Tensor, name: str) -> dict[str, int | float]:
    """Return the arguments that a loop needs for Adagrad; none for SGD. name: that of the sums of `parameter`."""
    if not isinstance(optimizer, Adagrad):
        return {}
    return {name: optimizer.sums_of(parameter).data_ptr(), "epsilon": optimizer.epsilon}
