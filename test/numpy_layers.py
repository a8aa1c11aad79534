"""Layers of the independent NumPy implementations. They use neither the package nor torch.

B batch, N width of the cross network, r its rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

Array = np.ndarray


class Mlp:
    """Linear layers with activations. `backward` returns the gradient with respect to the input.

    activations: "relu", "sigmoid", "tanh" or "none", one per layer.
    gradients: of the parameters, in the order of `parameters`, after `backward`.
    """

    def __init__(self, layers: Sequence[tuple[Array, Array]], activations: Sequence[str]) -> None:
        self.weights = [weight for weight, _ in layers]
        self.biases = [bias for _, bias in layers]
        self.activations = activations

    @classmethod
    def drawn(
        cls, widths: Sequence[int], activations: Sequence[str], init: str, stream: np.random.RandomState
    ) -> Mlp:
        """Return a network with initial weights. init: a value of --mlp-init."""
        layers = []
        for fan_in, fan_out in itertools.pairwise(widths):
            if init == "uniform":
                weight, bias = stream.rand(fan_out, fan_in), stream.rand(fan_out)
            elif init == "pytorch":
                bound = np.sqrt(1 / fan_in)
                weight, bias = (
                    stream.uniform(-bound, bound, (fan_out, fan_in)),
                    stream.uniform(-bound, bound, fan_out),
                )
            else:
                weight = stream.normal(0.0, np.sqrt(2 / (fan_in + fan_out)), (fan_out, fan_in))
                bias = stream.normal(0.0, np.sqrt(1 / fan_out), fan_out)
            layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        return cls(layers, activations)

    def forward(self, x: Array) -> Array:
        self.inputs, self.outputs = [], []
        for weight, bias, activation in zip(self.weights, self.biases, self.activations, strict=True):
            self.inputs.append(x)
            z = x @ weight.T + bias
            if activation == "relu":
                x = np.maximum(z, 0)
            elif activation == "sigmoid":
                x = 1 / (1 + np.exp(-z))
            elif activation == "tanh":
                x = np.tanh(z)
            else:
                x = z
            self.outputs.append(x)
        return x

    def backward(self, gradient: Array) -> Array:
        pairs: list[tuple[Array, Array]] = []
        layers = zip(self.weights, self.activations, self.inputs, self.outputs, strict=True)
        for weight, activation, x, y in reversed(list(layers)):
            if activation == "relu":
                gradient = gradient * (y > 0)
            elif activation == "sigmoid":
                gradient = gradient * (y * (1 - y))
            elif activation == "tanh":
                gradient = gradient * (1 - y * y)
            pairs.append((gradient.T @ x, gradient.sum(0)))
            gradient = gradient @ weight
        self.gradients = [value for pair in reversed(pairs) for value in pair]
        return gradient

    def parameters(self) -> list[Array]:
        return [value for pair in zip(self.weights, self.biases, strict=True) for value in pair]


class CrossNetwork:
    """Cross layers of low rank (DCN V2, arXiv 2008.13535): x becomes x0 * (W (V x) + b) + x.

    layers: V [r, N], W [N, r] and b [N] of each layer.
    gradients: of the parameters, in the order of `parameters`, after `backward`.
    """

    def __init__(self, layers: Sequence[tuple[Array, Array, Array]]) -> None:
        self.layers = layers
        self.gradients: list[Array] = []

    @classmethod
    def drawn(cls, width: int, rank: int, layers: int, stream: np.random.RandomState) -> CrossNetwork:
        """Return a network with initial weights."""
        scale = np.sqrt(2 / (width + rank))
        drawn = []
        for _ in range(layers):
            down, up = stream.normal(0.0, scale, (rank, width)), stream.normal(0.0, scale, (width, rank))
            drawn.append((down.astype(np.float32), up.astype(np.float32), np.zeros(width, np.float32)))
        return cls(drawn)

    def forward(self, x0: Array) -> Array:
        self.x0, self.inputs, self.downs, self.ups = x0, [], [], []
        x = x0
        for down, up, bias in self.layers:
            self.inputs.append(x)
            self.downs.append(x @ down.T)  # (B, r)
            self.ups.append(self.downs[-1] @ up.T + bias)  # (B, N)
            x = x0 * self.ups[-1] + x
        return x

    def backward(self, gradient: Array) -> Array:
        """Return the gradient of x0, which is both the first input and a factor in every layer."""
        of_x0 = np.zeros_like(gradient)
        triples: list[tuple[Array, Array, Array]] = []
        for number in reversed(range(len(self.layers))):
            down, up, _ = self.layers[number]
            of_x0 += gradient * self.ups[number]
            of_up = gradient * self.x0
            of_down = of_up @ up  # (B, r)
            triples.append((of_down.T @ self.inputs[number], of_up.T @ self.downs[number], of_up.sum(0)))
            gradient = gradient + of_down @ down
        self.gradients = [value for triple in reversed(triples) for value in triple]
        return of_x0 + gradient

    def parameters(self) -> list[Array]:
        return [value for triple in self.layers for value in triple]


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean binary cross-entropy of logits [B, 1] and its gradient."""
    labels = labels.astype(np.float32)
    losses = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    probabilities = 1 / (1 + np.exp(-logits))
    return float(losses.mean()), (probabilities - labels) / np.float32(len(labels))
