"""What a training step on the CPU does between its matrix products.

B samples, N width of a layer. Activations are float32 or bfloat16 ("halves"); weights, sums and the loss are
float32 or wider. Lookup and interaction stand in `cpu_interaction.py`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit

from mlperf.engines.cpu.parallel import (
    FAST,
    LINE,
    ParallelLoop,
    doubles,
    floats,
    from_bfloat16,
    halves,
    reals,
    share,
    thread,
    to_bfloat16,
    whole_numbers,
)

# Logarithms and variances are cut as in mlperf.models.loss.
_LEAST_LOG = -100.0
_LEAST_VARIANCE = 1e-12


@njit(fastmath=FAST)
def _mask_floats(gradient: Any, output: Any, sums: Any) -> None:
    for column in range(len(sums)):
        value = gradient[column] if output[column] > 0 else np.float32(0)
        gradient[column] = value
        sums[column] += value


@njit(fastmath=FAST)
def _mask_halves(gradient: Any, output: Any, sums: Any) -> None:
    for column in range(len(sums)):
        value = gradient[column] if output[column] & np.uint16(0x7FFF) else np.uint16(0)
        gradient[column] = value
        sums[column] += from_bfloat16(value)


def _relu_backward(arguments: Any) -> None:
    """Gradient and output of a ReLU [B, N], its bias float32 [N]; B, N, the rate, whether they are bfloat16.

    Sets the gradient to 0 where the output is, and subtracts rate times its column sums from the bias. A thread
    has columns to itself, so that sums do not depend on the number of threads.
    """
    told = whole_numbers(arguments)
    samples, width, low = told[3], told[4], told[6] != 0
    rate = np.float32(reals(arguments)[5])
    bias = floats(told[2], 1, width)
    start, stop = share((width + LINE - 1) // LINE)
    left, right = start * LINE, min(stop * LINE, width)
    gradient, output = floats(told[0], samples, width), floats(told[1], samples, width)
    half_gradient, half_output = halves(told[0], samples, width), halves(told[1], samples, width)
    sums = np.zeros(max(right - left, 0), np.float32)
    for sample in range(samples):
        if low:
            _mask_halves(half_gradient[sample, left:right], half_output[sample, left:right], sums)
        else:
            _mask_floats(gradient[sample, left:right], output[sample, left:right], sums)
    for column in range(left, right):
        bias[0, column] -= rate * sums[column - left]


@njit(fastmath=FAST)
def _update_floats(weights: Any, gradients: Any, rate: Any) -> None:
    for position in range(len(weights)):
        weights[position] -= rate * gradients[position]


@njit(fastmath=FAST)
def _update_halves(weights: Any, copies: Any, gradients: Any, rate: Any) -> None:
    for position in range(len(weights)):
        value = weights[position] - rate * from_bfloat16(gradients[position])
        weights[position] = value
        copies[position] = to_bfloat16(value)


def _weight_update(arguments: Any) -> None:
    """Weights float32 [n], their bfloat16 copy, gradients [n]; n, the rate, whether there is bfloat16 at all."""
    told = whole_numbers(arguments)
    count, low = told[3], told[5] != 0
    rate = np.float32(reals(arguments)[4])
    weights, gradients = floats(told[0], 1, count), floats(told[2], 1, count)
    copies, half_gradients = halves(told[1], 1, count), halves(told[2], 1, count)
    start, stop = share((count + LINE - 1) // LINE)
    mine = slice(start * LINE, min(stop * LINE, count))
    if low:
        _update_halves(weights[0, mine], copies[0, mine], half_gradients[0, mine], rate)
    else:
        _update_floats(weights[0, mine], gradients[0, mine], rate)


@njit
def _probability(logit: Any) -> Any:
    return np.float32(1) / (np.float32(1) + np.float32(math.exp(-logit)))


@njit(fastmath=FAST)
def _logit(hidden: Any, half: Any, low: Any, sample: Any, width: Any, weights: Any, bias: Any) -> Any:
    total = np.float32(0)
    if low:
        for column in range(width):
            total += from_bfloat16(half[sample, column]) * weights[0, column]
    else:
        for column in range(width):
            total += hidden[sample, column] * weights[0, column]
    return total + bias[0, 0]


def _score(arguments: Any) -> None:
    """The last layer: hidden [B, N], weights float32 [N], bias [1], probabilities float32 [B]; B, N, threshold,
    whether hidden is bfloat16."""
    told = whole_numbers(arguments)
    samples, width, low = told[4], told[5], told[7] != 0
    threshold = np.float32(reals(arguments)[6])
    hidden, half = floats(told[0], samples, width), halves(told[0], samples, width)
    weights, bias, probabilities = floats(told[1], 1, width), floats(told[2], 1, 1), floats(told[3], 1, samples)
    start, stop = share(samples)
    for sample in range(start, stop):
        probability = _probability(_logit(hidden, half, low, sample, width, weights, bias))
        if threshold > 0:
            probability = min(max(probability, threshold), np.float32(1) - threshold)
        probabilities[0, sample] = probability


def _last_layer(arguments: Any) -> None:
    """The last layer and the loss, forward and backward: hidden [B, N], weights float32 [N], bias [1], labels
    float32 [B], d hidden [B, N], partial sums float64 [threads, N + 3]; B, N, kind of loss (0: mse, 1:
    cross-entropy), weights of labels 0 and 1, threshold, whether hidden is bfloat16.

    To a thread's partial sums are added: d weights, d bias, loss, correct predictions.
    """
    told = whole_numbers(arguments)
    samples, width, kind, low = told[6], told[7], told[8], told[12] != 0
    numbers = reals(arguments)
    weight_of_0, weight_of_1 = np.float32(numbers[9]), np.float32(numbers[10])
    threshold = np.float32(numbers[11])
    hidden, half = floats(told[0], samples, width), halves(told[0], samples, width)
    weights, bias, labels = floats(told[1], 1, width), floats(told[2], 1, 1), floats(told[3], 1, samples)
    gradient, half_gradient = floats(told[4], samples, width), halves(told[4], samples, width)
    sums = doubles(told[5] + 8 * (width + 3) * thread(), 1, width + 3)
    one = np.float32(1)
    start, stop = share(samples)
    for sample in range(start, stop):
        unclamped = _probability(_logit(hidden, half, low, sample, width, weights, bias))
        probability, label = unclamped, labels[0, sample]
        if threshold > 0:
            probability = min(max(unclamped, threshold), one - threshold)
        if kind == 0:
            loss = (probability - label) * (probability - label)
            slope = np.float32(2) * (probability - label)
        else:
            click = (
                max(np.float32(math.log(probability)), np.float32(_LEAST_LOG))
                if probability > 0
                else (np.float32(_LEAST_LOG) if probability == 0 else probability)
            )
            no_click = (
                max(np.float32(math.log1p(-probability)), np.float32(_LEAST_LOG))
                if probability < one
                else (np.float32(_LEAST_LOG) if probability == one else probability)
            )
            weight = weight_of_0 + (weight_of_1 - weight_of_0) * label
            loss = weight * ((label - one) * no_click - label * click)
            variance = max((one - probability) * probability, np.float32(_LEAST_VARIANCE))
            slope = weight * (probability - label) / variance
        inside = threshold == 0 or threshold <= unclamped <= one - threshold
        d_logit = slope / np.float32(samples) * (one - unclamped) * unclamped if inside else np.float32(0)
        sums[0, width] += d_logit
        sums[0, width + 1] += loss
        sums[0, width + 2] += (one if probability > np.float32(0.5) else np.float32(0)) == label
        if low:
            for column in range(width):
                sums[0, column] += d_logit * from_bfloat16(half[sample, column])
                half_gradient[sample, column] = to_bfloat16(d_logit * weights[0, column])
        else:
            for column in range(width):
                sums[0, column] += d_logit * hidden[sample, column]
                gradient[sample, column] = d_logit * weights[0, column]


@cache
def relu_backward() -> ParallelLoop:
    """Return the loop `_relu_backward`."""
    return ParallelLoop(_relu_backward)


@cache
def weight_update() -> ParallelLoop:
    """Return the loop `_weight_update`."""
    return ParallelLoop(_weight_update)


@cache
def score() -> ParallelLoop:
    """Return the loop `_score`."""
    return ParallelLoop(_score)


@cache
def last_layer() -> ParallelLoop:
    """Return the loop `_last_layer`."""
    return ParallelLoop(_last_layer)


def partial_sums(width: int) -> torch.Tensor:
    """Return room for the partial sums of `last_layer`, float64 [threads, N + 3]."""
    return torch.zeros(torch.get_num_threads(), width + 3, dtype=torch.float64)
