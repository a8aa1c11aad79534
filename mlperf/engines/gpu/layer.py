"""A linear layer with ReLU on the GPU. B samples, N outputs, K inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mlperf.engines.gpu.kernels.linear import relu_backward
from mlperf.engines.gpu.kernels.weight_update import DenseParameter
from mlperf.optim.adagrad import Adagrad
from mlperf.optim.optimizer import Optimizer


class GpuLayer:
    """A linear layer and its ReLU.

    weight [N, K] and bias [N] are the model's, float32. The products use copies in `dtype`; the rows of the
    weight's copy are padded with zeros to `input_width`.
    """

    def __init__(self, linear: nn.Linear, input_width: int, dtype: torch.dtype) -> None:
        self._linear = linear
        self.weight, self.bias = linear.weight.data, linear.bias.data
        self._copy = torch.zeros(len(self.weight), input_width, dtype=dtype, device=self.weight.device)
        self._bias_copy = torch.zeros_like(self.bias, dtype=dtype)
        self._d_weight = torch.empty_like(self._copy)
        self.d_bias = torch.zeros_like(self.bias)  # accumulated by the kernels, cleared by the update
        # Whether `backward` gets the gradient of the pre-activation, and `d_bias` contains that of the bias.
        self.relu_is_done = False
        self.copy_weights()

    def copy_weights(self) -> None:
        """Refresh the copies after the model's weights were changed externally."""
        self._copy[:, : self.weight.shape[1]] = self.weight
        self._bias_copy.copy_(self.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output [B, N] for `inputs` [B, input_width]."""
        return torch._addmm_activation(self._bias_copy, inputs, self._copy.t(), use_gelu=False)

    def backward(
        self,
        gradient: torch.Tensor,
        output: torch.Tensor,
        inputs: torch.Tensor,
        rate: torch.Tensor,
        *,
        needs_input_grad: bool = True,
    ) -> torch.Tensor:
        """Compute the gradients of the layer and return that of `inputs`.

        gradient: [B, N], gradient of `output`; overwritten with the gradient of the pre-activation, which it is
            already if `relu_is_done`.
        rate: not needed; all layers are updated together at the end of the step.
        needs_input_grad: if False, what is returned is undefined.
        """
        if not self.relu_is_done:
            relu_backward(gradient=gradient, output=output, d_bias=self.d_bias)
        input_gradient = gradient @ self._copy if needs_input_grad else gradient
        torch.mm(gradient.t(), inputs, out=self._d_weight)
        return input_gradient

    def parameters(self, optimizer: Optimizer) -> Iterator[DenseParameter]:
        """Yield the weight and the bias, and what their update by `optimizer` needs."""
        weight, bias = self._linear.weight, self._linear.bias
        yield DenseParameter(self.weight, self._d_weight, False, self._copy, sums_of_squares(optimizer, weight))
        yield DenseParameter(self.bias, self.d_bias, True, self._bias_copy, sums_of_squares(optimizer, bias))


def sums_of_squares(optimizer: Optimizer, parameter: torch.Tensor) -> torch.Tensor | None:
    """Return Adagrad's sums of a dense parameter; None for SGD."""
    return optimizer.sums_of(parameter) if isinstance(optimizer, Adagrad) else None
