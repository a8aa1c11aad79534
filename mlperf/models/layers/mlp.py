"""The multilayer perceptrons below and above the interaction."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def make_mlp(widths: Sequence[int], activation: str, *, last: str | None = None) -> nn.Sequential:
    """Return linear layers `widths[0]` -> ... -> `widths[-1]`, each followed by its activation.

    last: activation of the last layer, if it differs (the top MLP ends in a sigmoid). Weights have PyTorch's
    initial values until mlperf.models.initialization fills them. Layer K is entry 2K of the Sequential, as in
    existing checkpoints.
    """
    layers: list[nn.Module] = []
    for position, (fan_in, fan_out) in enumerate(pairwise(widths)):
        is_last = position == len(widths) - 2
        layers.append(_linear(fan_in, fan_out))
        layers.append(ACTIVATIONS[last if is_last and last else activation]())
    return nn.Sequential(*layers)


def _linear(fan_in: int, fan_out: int) -> nn.Linear:
    """Return a linear layer. That of a model without dense features has no inputs, only a bias."""
    if fan_in:
        return nn.Linear(fan_in, fan_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no weight to initialize
        return nn.Linear(fan_in, fan_out)


def linear_layers(mlp: nn.Sequential) -> list[nn.Linear]:
    """Return the layers with weights."""
    return [layer for layer in mlp if isinstance(layer, nn.Linear)]


def layers_with_weights(mlp: nn.Sequential) -> list[nn.Module]:
    """Return the linear layers, quantized or not."""
    return [layer for number, layer in enumerate(mlp) if number % 2 == 0]
