"""Last layer of the top MLP, sigmoid and loss on the CPU. The layer is too narrow for a matrix product.

B samples, N inputs of the layer. The inputs are float32 or bfloat16; weights are float32, the loss and the sums of
gradients float64.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import carray, njit

from mlperf.engines.cpu.loops.intrinsics import (
    FAST,
    bfloat16_array,
    float32_array,
    float64_array,
    from_bfloat16,
    share,
    thread,
    to_bfloat16,
)
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, Real, arguments

# Values of `LastLayer.loss`.
SQUARED_ERROR, CROSS_ENTROPY, LOGIT_CROSS_ENTROPY = 0, 1, 2


@njit
def _sigmoid(logit: Any) -> Any:
    return np.float32(1) / (np.float32(1) + np.float32(math.exp(-logit)))


@njit(fastmath=FAST)
def _logit(
    hidden: Any, half_hidden: Any, is_bfloat16: Any, sample: Any, width: Any, weights: Any, bias: Any
) -> Any:
    total = np.float32(0)
    if is_bfloat16:
        for column in range(width):
            total += from_bfloat16(half_hidden[sample, column]) * weights[0, column]
    else:
        for column in range(width):
            total += hidden[sample, column] * weights[0, column]
    return total + bias[0, 0]


@arguments
class Score(Arguments):
    """Arguments of `score`."""

    hidden: Address  # [B, N]
    weights: Address  # float32 [N]
    bias: Address  # float32 [1]
    probabilities: Address  # float32 [B], written
    samples: Integer  # B
    width: Integer  # N
    threshold: Real  # t > 0: probabilities are clamped to [t, 1 - t]
    bfloat16: Integer  # whether hidden is bfloat16


def _score(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    samples, width, is_bfloat16, threshold = (
        args.samples,
        args.width,
        args.bfloat16 != 0,
        np.float32(args.threshold),
    )
    hidden, half_hidden = float32_array(args.hidden, samples, width), bfloat16_array(args.hidden, samples, width)
    weights, bias = float32_array(args.weights, 1, width), float32_array(args.bias, 1, 1)
    probabilities = float32_array(args.probabilities, 1, samples)
    start, stop = share(samples)
    for sample in range(start, stop):
        probability = _sigmoid(_logit(hidden, half_hidden, is_bfloat16, sample, width, weights, bias))
        if threshold > 0:
            probability = min(max(probability, threshold), np.float32(1) - threshold)
        probabilities[0, sample] = probability


@cache
def score() -> ParallelLoop[Score]:
    """Return the loop that computes the predicted probabilities."""
    return ParallelLoop(_score, Score)


@arguments
class LastLayer(Arguments):
    """Arguments of `last_layer`."""

    hidden: Address  # [B, N]
    weights: Address  # float32 [N]
    bias: Address  # float32 [1]
    labels: Address  # float32 [B]
    hidden_gradient: Address  # [B, N], written
    sums: Address  # float64 [threads, N + 3], accumulated: gradients of weights and bias, loss, correct
    samples: Integer  # B
    width: Integer  # N
    loss: Integer  # SQUARED_ERROR, CROSS_ENTROPY or LOGIT_CROSS_ENTROPY
    weight_of_0: Real  # loss weight of label 0
    weight_of_1: Real  # loss weight of label 1
    threshold: Real  # t > 0: probabilities are clamped to [t, 1 - t]
    bfloat16: Integer  # whether hidden and its gradient are bfloat16


@njit(fastmath=FAST)
def _squared_error(probability: Any, label: Any) -> Any:
    """Return the loss of a sample and its derivative with respect to the probability."""
    return (probability - label) * (probability - label), np.float32(2) * (probability - label)


@njit(fastmath=FAST)
def _cross_entropy(probability: Any, label: Any, weight: Any, min_log: Any, min_variance: Any) -> Any:
    """Return the loss of a sample and its derivative with respect to the probability. Propagates NaN."""
    one = np.float32(1)
    log_click = (
        max(np.float32(math.log(probability)), min_log)
        if probability > 0
        else (min_log if probability == 0 else probability)
    )
    log_no_click = (
        max(np.float32(math.log1p(-probability)), min_log)
        if probability < one
        else (min_log if probability == one else probability)
    )
    loss = weight * ((label - one) * log_no_click - label * log_click)
    variance = max((one - probability) * probability, min_variance)
    return loss, weight * (probability - label) / variance


@njit(fastmath=FAST)
def _logit_cross_entropy(logit: Any, label: Any) -> Any:
    """Return the loss of a sample, log(1 + exp(logit)) - label * logit. Propagates NaN."""
    zero = np.float32(0)
    positive = logit if logit > zero else zero
    return positive - label * logit + np.float32(math.log1p(math.exp(-abs(logit))))


@cache
def make_last_layer(min_log: float, min_variance: float) -> ParallelLoop[LastLayer]:
    """Return the loop of the last layer and the loss, forward and backward.

    min_log: lower bound of the logarithm of a probability. min_variance: lower bound of p (1 - p), the
    denominator of the derivative. Both are compile-time constants.
    """

    def last_layer(pointer: Any) -> None:
        args = carray(pointer, 1)[0]
        samples, width, loss_kind, is_bfloat16 = args.samples, args.width, args.loss, args.bfloat16 != 0
        weight_of_0, weight_of_1 = np.float32(args.weight_of_0), np.float32(args.weight_of_1)
        threshold = np.float32(args.threshold)
        hidden, half_hidden = (
            float32_array(args.hidden, samples, width),
            bfloat16_array(args.hidden, samples, width),
        )
        weights, bias = float32_array(args.weights, 1, width), float32_array(args.bias, 1, 1)
        labels = float32_array(args.labels, 1, samples)
        gradient = float32_array(args.hidden_gradient, samples, width)
        half_gradient = bfloat16_array(args.hidden_gradient, samples, width)
        sums = float64_array(args.sums + 8 * (width + 3) * thread(), 1, width + 3)
        one = np.float32(1)
        start, stop = share(samples)
        for sample in range(start, stop):
            logit = _logit(hidden, half_hidden, is_bfloat16, sample, width, weights, bias)
            unclamped = _sigmoid(logit)
            probability, label = unclamped, labels[0, sample]
            if threshold > 0:
                probability = min(max(unclamped, threshold), one - threshold)
            if loss_kind == SQUARED_ERROR:
                loss, slope = _squared_error(probability, label)
            else:
                weight = weight_of_0 + (weight_of_1 - weight_of_0) * label
                loss, slope = _cross_entropy(
                    probability, label, weight, np.float32(min_log), np.float32(min_variance)
                )
            inside = threshold == 0 or threshold <= unclamped <= one - threshold
            logit_gradient = (
                slope / np.float32(samples) * (one - unclamped) * unclamped if inside else np.float32(0)
            )
            if loss_kind == LOGIT_CROSS_ENTROPY:
                loss = _logit_cross_entropy(logit, label)
                logit_gradient = (unclamped - label) / np.float32(samples)
            sums[0, width] += logit_gradient
            sums[0, width + 1] += loss
            sums[0, width + 2] += (one if probability > np.float32(0.5) else np.float32(0)) == label
            if is_bfloat16:
                for column in range(width):
                    sums[0, column] += logit_gradient * from_bfloat16(half_hidden[sample, column])
                    half_gradient[sample, column] = to_bfloat16(logit_gradient * weights[0, column])
            else:
                for column in range(width):
                    sums[0, column] += logit_gradient * hidden[sample, column]
                    gradient[sample, column] = logit_gradient * weights[0, column]

    return ParallelLoop(last_layer, LastLayer)
