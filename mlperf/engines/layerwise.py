"""Layer-by-layer training step shared by the CPU and GPU engines, with handwritten gradients.

An engine provides the layers, the interaction and the loss. It updates each weight as soon as its gradient is
known, or all layers together at the end of the step.

The interaction is either the dot products, or the concatenation of the bottom MLP's output and the pooled rows
followed by the layers of a cross network.

B samples, T tables, N and K widths of a layer's output and input, D embedding dimension, r rank of a cross layer.
In a cross network, N = (T + 1) * D.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from mlperf.data.source import BatchSource
from mlperf.engines.protocol import LossSums

# Batch type and learning-rate type of an engine.
Inputs = TypeVar("Inputs")
Rate = TypeVar("Rate")
Rate_contra = TypeVar("Rate_contra", contravariant=True)


class Weights(Protocol):
    """The parameters of a linear layer: weight float32 [N, K], bias float32 [N]."""

    weight: torch.Tensor
    bias: torch.Tensor


class Layer(Weights, Protocol[Rate_contra]):
    """A linear layer and its ReLU."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output [B, N] for `inputs` [B, K]."""
        ...

    def backward(
        self,
        gradient: torch.Tensor,
        output: torch.Tensor,
        inputs: torch.Tensor,
        rate: Rate_contra,
        *,
        needs_input_grad: bool,
    ) -> torch.Tensor:
        """Compute the gradients and return that of `inputs` [B, K]; undefined if `needs_input_grad` is False.

        gradient: [B, N], gradient of `output`; overwritten. rate: for an engine that updates the layer at once.
        """
        ...


@dataclass
class CrossValues:
    """Input x [B, N] of a cross layer, and its intermediate results up [B, N] and down [B, r]."""

    x: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


class CrossLayer(Protocol[Rate_contra]):
    """A layer of a low-rank cross network: x0 * up + x with down = V x, [B, r], and up = W down + b, [B, N].

    x0 is the input of the first layer, x that of this one. down_weight: V, float32 [r, N]. up_weight: W, float32
    [N, r]. bias: b, float32 [N].
    """

    down_weight: torch.Tensor
    up_weight: torch.Tensor
    bias: torch.Tensor

    def forward(self, x0: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, CrossValues]:
        """Return the output [B, N], and what the backward pass needs."""
        ...

    def backward(
        self, gradient: torch.Tensor, x0: torch.Tensor, values: CrossValues, d_x0: torch.Tensor, rate: Rate_contra
    ) -> torch.Tensor:
        """Compute the gradients, add that of `x0` to `d_x0` and return that of x [B, N].

        The last layer, whose backward pass comes first, overwrites `d_x0`. The first layer, whose x is `x0`, adds
        that of x too and returns `d_x0`. gradient: [B, N], gradient of the output. values: from `forward`. d_x0:
        [B, N]. rate: for an engine that updates the layer at once.
        """
        ...


@dataclass
class Activations:
    """Results of the forward pass that the backward pass needs.

    bottom: the input of the bottom MLP and the output of each of its layers.
    top: the interaction and the output of each layer of the top MLP but the last.
    labels: float32, one for each sample.
    ids: embedding row ids in an engine-specific layout.
    cross: values of each layer of the cross network; the input of the first one is the concatenation x0. Empty
        without a cross network.
    """

    bottom: list[torch.Tensor]
    top: list[torch.Tensor]
    labels: torch.Tensor
    ids: torch.Tensor
    cross: list[CrossValues] = field(default_factory=list)


def run_layers(layers: Iterable[Layer[Rate]], inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return `inputs` [B, K] and the output of each layer."""
    values = [inputs]
    for layer in layers:
        values.append(layer.forward(values[-1]))
    return values


def run_cross_layers(
    layers: Iterable[CrossLayer[Rate]], x0: torch.Tensor
) -> tuple[torch.Tensor, list[CrossValues]]:
    """Return the output of the cross network [B, N] for `x0` [B, N], and the values of each layer."""
    x, values = x0, []
    for layer in layers:
        x, of_layer = layer.forward(x0, x)
        values.append(of_layer)
    return x, values


def update_layers(
    layers: Sequence[Layer[Rate]],
    values: Sequence[torch.Tensor],
    gradient: torch.Tensor,
    rate: Rate,
    *,
    needs_input_grad: bool,
) -> torch.Tensor:
    """Run the backward pass of the layers, last first, and return the gradient of their input, if it is needed.

    values: return value of `run_layers`. gradient: gradient of its last element; overwritten.
    """
    for number in reversed(range(len(layers))):
        needed = needs_input_grad or number > 0
        gradient = layers[number].backward(
            gradient, values[number + 1], values[number], rate, needs_input_grad=needed
        )
    return gradient


def forward_ranges(*, has_cross: bool) -> dict[str, str]:
    """Return the parts of a forward pass and their methods. has_cross: whether there is a cross network."""
    ranges = {
        "run_bottom": "bottom MLP",
        "look_up_and_interact": "embedding lookup and interaction",
        "run_top": "top MLP",
        "predict": "prediction",
        "check": "check of weights and rows",
    }
    if has_cross:
        ranges |= {"look_up_and_interact": "embedding lookup", "run_cross": "cross network"}
    return ranges


class LayerwiseStep(ABC, Generic[Inputs, Rate]):
    """A training step.

    bottom, top: layers of the MLPs, without the last layer of the top MLP. cross: layers of the cross network;
    empty without one. backward_ranges: the parts of the backward pass and their methods.
    """

    bottom: Sequence[Layer[Rate]]
    top: Sequence[Layer[Rate]]
    cross: Sequence[CrossLayer[Rate]]
    sums: LossSums
    backward_ranges: ClassVar[Mapping[str, str]] = {
        "update_last_layer": "loss and update of the last layer",
        "update_top": "gradient and update of the top MLP",
        "update_cross": "gradient and update of the cross network",
        "interaction_gradients": "gradient of the interaction",
        "update_rows": "update of the embedding tables",
        "update_bottom": "gradient and update of the bottom MLP",
    }

    def backward_parts(self) -> Mapping[str, str]:
        """Return the parts of the backward pass and their methods."""
        return {
            method: part for method, part in self.backward_ranges.items() if self.cross or method != "update_cross"
        }

    @abstractmethod
    def batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Any]:
        """Return the batches of `epoch` from number `first` on."""

    def training_batches(self, data: BatchSource, epoch: int, first: int = 0) -> Iterator[Any]:
        """Return the batches of `epoch` from number `first` on."""
        return self.batches(data, epoch, first)

    @abstractmethod
    def forward(self, inputs: Inputs) -> Activations:
        """Run the model up to its last layer."""

    @abstractmethod
    def update_last_layer(self, activations: Activations, rate: Rate) -> torch.Tensor:
        """Add to the sums, run the backward pass of the last layer and return the gradient of its inputs."""

    @abstractmethod
    def interaction_gradients(
        self, activations: Activations, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of the bottom MLP's output and of the rows read, or of their sum for each bag.

        gradient: gradient of the interaction; with a cross network, that of its input, float32 [B, N].
        """

    @abstractmethod
    def update_rows(self, activations: Activations, gradients: torch.Tensor, rate: Rate) -> None:
        """Update the rows of the tables. gradients: those of the rows read, from `interaction_gradients`."""

    def update_tables(self, activations: Activations, gradient: torch.Tensor, rate: Rate) -> torch.Tensor:
        """Update the tables and return the gradient of the bottom MLP's output.

        gradient: as for `interaction_gradients`.
        """
        bottom_gradient, row_gradients = self.interaction_gradients(activations, gradient)
        self.update_rows(activations, row_gradients, rate)
        return bottom_gradient

    @abstractmethod
    def cross_gradient(self, x0: torch.Tensor) -> torch.Tensor:
        """Return uninitialized memory for the gradient of `x0`, the cross network's input [B, N]."""

    def update_cross(self, activations: Activations, gradient: torch.Tensor, rate: Rate) -> torch.Tensor:
        """Run the backward pass of the cross network and return the gradient of its input [B, N].

        gradient: gradient of its output.
        """
        x0 = activations.cross[0].x
        d_x0 = self.cross_gradient(x0)
        for layer, values in zip(reversed(self.cross), reversed(activations.cross), strict=True):
            gradient = layer.backward(gradient, x0, values, d_x0, rate)
        return gradient

    def update_top(self, activations: Activations, gradient: torch.Tensor, rate: Rate) -> torch.Tensor:
        """Run the backward pass of the top MLP but its last layer, and return the gradient of the interaction."""
        return update_layers(self.top, activations.top, gradient, rate, needs_input_grad=True)

    def update_bottom(self, activations: Activations, gradient: torch.Tensor, rate: Rate) -> None:
        """Run the backward pass of the bottom MLP. gradient: gradient of its output."""
        update_layers(self.bottom, activations.bottom, gradient, rate, needs_input_grad=False)

    def update(self, inputs: Inputs, rate: Rate) -> None:
        """Train on one batch: forward pass, then backward pass with the updates."""
        activations = self.forward(inputs)
        gradient = self.update_last_layer(activations, rate)
        gradient = self.update_top(activations, gradient, rate)
        if self.cross:
            gradient = self.update_cross(activations, gradient, rate)
        gradient = self.update_tables(activations, gradient, rate)
        self.update_bottom(activations, gradient, rate)


def require_rate(rate: float | None) -> float:
    """Return `rate`, which must not be None: these engines do not accumulate gradients over batches."""
    assert rate is not None, "this engine does not accumulate gradients over batches"
    return rate


def mark_nonfinite_weights(
    layers: Iterable[Weights], sums: LossSums, cross: Iterable[CrossLayer[Rate]] = ()
) -> None:
    """Set the loss to NaN if a weight is not finite: ReLU can hide it."""
    weights: list[tuple[torch.Tensor, ...]] = [(layer.weight, layer.bias) for layer in layers]
    weights += [(layer.down_weight, layer.up_weight, layer.bias) for layer in cross]
    for of_layer in weights:
        if not math.isfinite(sum(float(values.sum()) for values in of_layer)):
            sums.loss.fill_(math.nan)
