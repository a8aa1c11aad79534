"""CPU loops for training an MLP: ReLU backward pass, bias and weight updates by SGD or Adagrad.

B samples, N width of a layer. Activations are float32 or bfloat16; weights and biases are float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, njit

from mlperf.engines.cpu.loops.adagrad import adagrad_direction
from mlperf.engines.cpu.loops.intrinsics import (
    FAST,
    LINE,
    bfloat16_array,
    float32_array,
    from_bfloat16,
    share,
    to_bfloat16,
)
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, Real, arguments


@arguments
class ReluBackward(Arguments):
    """Arguments of `relu_backward`."""

    gradient: Address  # [B, N], gradient of the output; set to 0 where the output is 0
    output: Address  # [B, N]
    bias: Address  # float32 [N], updated
    bias_sums: Address  # float32 [N], Adagrad's sums, updated; 0 for SGD
    samples: Integer  # B
    width: Integer  # N
    rate: Real
    epsilon: Real  # of Adagrad
    bfloat16: Integer  # whether gradient and output are bfloat16


@njit(fastmath=FAST)
def _mask_float32(gradient: Any, output: Any, sums: Any) -> None:
    for column in range(len(sums)):
        value = gradient[column] if output[column] > 0 else np.float32(0)
        gradient[column] = value
        sums[column] += value


@njit(fastmath=FAST)
def _mask_bfloat16(gradient: Any, output: Any, sums: Any) -> None:
    for column in range(len(sums)):
        value = gradient[column] if output[column] & np.uint16(0x7FFF) else np.uint16(0)
        gradient[column] = value
        sums[column] += from_bfloat16(value)


@njit(fastmath=FAST)
def _adagrad_float32(weights: Any, sums: Any, gradients: Any, rate: Any, epsilon: Any) -> None:
    for position in range(len(weights)):
        weights[position] -= rate * adagrad_direction(gradients[position], sums, position, epsilon)


@njit(fastmath=FAST)
def update_bias(args: Any, left: Any, right: Any, sums: Any) -> None:
    """Update the columns `left` to `right` of a bias by the sums of their gradients.

    args: has bias, bias_sums, width, rate and epsilon as `ReluBackward`.
    """
    rate, bias = np.float32(args.rate), float32_array(args.bias, 1, args.width)
    if args.bias_sums:
        bias_sums = float32_array(args.bias_sums, 1, args.width)
        _adagrad_float32(bias[0, left:right], bias_sums[0, left:right], sums, rate, np.float32(args.epsilon))
    else:
        for column in range(left, right):
            bias[0, column] -= rate * sums[column - left]


def _relu_backward(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    samples, width, is_bfloat16 = args.samples, args.width, args.bfloat16 != 0
    start, stop = share((width + LINE - 1) // LINE)
    left, right = start * LINE, min(stop * LINE, width)
    gradient, output = float32_array(args.gradient, samples, width), float32_array(args.output, samples, width)
    half_gradient = bfloat16_array(args.gradient, samples, width)
    half_output = bfloat16_array(args.output, samples, width)
    sums = np.zeros(max(right - left, 0), np.float32)
    for sample in range(samples):
        if is_bfloat16:
            _mask_bfloat16(half_gradient[sample, left:right], half_output[sample, left:right], sums)
        else:
            _mask_float32(gradient[sample, left:right], output[sample, left:right], sums)
    update_bias(args, left, right, sums)


@cache
def relu_backward() -> ParallelLoop[ReluBackward]:
    """Return the loop for the ReLU backward pass and the bias update.

    Each thread sums its own columns, so the sums over samples do not depend on the number of threads.
    """
    return ParallelLoop(_relu_backward, ReluBackward)


@arguments
class WeightUpdate(Arguments):
    """Arguments of `weight_update`."""

    weights: Address  # float32 [count], updated
    copies: Address  # bfloat16 [count], the updated weights; not used in float32
    sums: Address  # float32 [count], Adagrad's sums, updated; 0 for SGD
    gradients: Address  # [count]
    count: Integer
    rate: Real
    epsilon: Real  # of Adagrad
    bfloat16: Integer  # whether gradients are bfloat16


@njit(fastmath=FAST)
def _update_float32(weights: Any, gradients: Any, rate: Any) -> None:
    for position in range(len(weights)):
        weights[position] -= rate * gradients[position]


@njit(fastmath=FAST)
def _update_bfloat16(weights: Any, copies: Any, gradients: Any, rate: Any) -> None:
    for position in range(len(weights)):
        value = weights[position] - rate * from_bfloat16(gradients[position])
        weights[position] = value
        copies[position] = to_bfloat16(value)


@njit(fastmath=FAST)
def _adagrad_bfloat16(weights: Any, copies: Any, sums: Any, gradients: Any, rate: Any, epsilon: Any) -> None:
    for position in range(len(weights)):
        direction = adagrad_direction(from_bfloat16(gradients[position]), sums, position, epsilon)
        value = weights[position] - rate * direction
        weights[position] = value
        copies[position] = to_bfloat16(value)


def _weight_update(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    count, is_bfloat16, rate = args.count, args.bfloat16 != 0, np.float32(args.rate)
    weights, gradients = float32_array(args.weights, 1, count), float32_array(args.gradients, 1, count)
    copies, half_gradients = bfloat16_array(args.copies, 1, count), bfloat16_array(args.gradients, 1, count)
    sums, epsilon = float32_array(args.sums, 1, count), np.float32(args.epsilon)
    start, stop = share((count + LINE - 1) // LINE)
    part = slice(start * LINE, min(stop * LINE, count))
    if args.sums and is_bfloat16:
        _adagrad_bfloat16(weights[0, part], copies[0, part], sums[0, part], half_gradients[0, part], rate, epsilon)
    elif args.sums:
        _adagrad_float32(weights[0, part], sums[0, part], gradients[0, part], rate, epsilon)
    elif is_bfloat16:
        _update_bfloat16(weights[0, part], copies[0, part], half_gradients[0, part], rate)
    else:
        _update_float32(weights[0, part], gradients[0, part], rate)


@cache
def weight_update() -> ParallelLoop[WeightUpdate]:
    """Return the loop that updates the weights, and their bfloat16 copies, from the gradients."""
    return ParallelLoop(_weight_update, WeightUpdate)
