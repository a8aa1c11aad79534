"""Element-wise parts of a low-rank cross network on the CPU. The matrix products are in `products`.

B samples, N width. Activations are float32 or bfloat16; biases and the gradient of the network's input float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, njit

from mlperf.engines.cpu.loops.intrinsics import (
    FAST,
    LINE,
    bfloat16_array,
    float32_array,
    from_bfloat16,
    share,
    to_bfloat16,
)
from mlperf.engines.cpu.loops.mlp import update_bias
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, Real, arguments


@arguments
class CrossForward(Arguments):
    """Arguments of `cross_forward`."""

    x0: Address  # [B, N], input of the network
    x: Address  # [B, N], input of the layer
    up: Address  # [B, N]
    crossed: Address  # [B, N], written: x0 * up + x
    samples: Integer  # B
    width: Integer  # N
    bfloat16: Integer  # whether all are bfloat16


@njit(fastmath=FAST)
def _cross_float32(x0: Any, x: Any, up: Any, crossed: Any) -> None:
    for position in range(len(crossed)):
        crossed[position] = x0[position] * up[position] + x[position]


@njit(fastmath=FAST)
def _cross_bfloat16(x0: Any, x: Any, up: Any, crossed: Any) -> None:
    for position in range(len(crossed)):
        product = from_bfloat16(x0[position]) * from_bfloat16(up[position])
        crossed[position] = to_bfloat16(product + from_bfloat16(x[position]))


def _cross_forward(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    samples, width = args.samples, args.width
    start, stop = share(samples)
    for sample in range(start, stop):
        if args.bfloat16:
            _cross_bfloat16(
                bfloat16_array(args.x0, samples, width)[sample],
                bfloat16_array(args.x, samples, width)[sample],
                bfloat16_array(args.up, samples, width)[sample],
                bfloat16_array(args.crossed, samples, width)[sample],
            )
        else:
            _cross_float32(
                float32_array(args.x0, samples, width)[sample],
                float32_array(args.x, samples, width)[sample],
                float32_array(args.up, samples, width)[sample],
                float32_array(args.crossed, samples, width)[sample],
            )


@cache
def cross_forward() -> ParallelLoop[CrossForward]:
    """Return the loop that computes the output of a layer."""
    return ParallelLoop(_cross_forward, CrossForward)


@arguments
class CrossBackward(Arguments):
    """Arguments of `cross_backward`."""

    gradient: Address  # [B, N], gradient of the layer's output
    x0: Address  # [B, N], input of the network
    up: Address  # [B, N]
    d_up: Address  # [B, N], written: gradient * x0
    d_x0: Address  # float32 [B, N], gradient of x0: gradient * up is added, or written if `overwrite`
    bias: Address  # float32 [N], updated
    bias_sums: Address  # float32 [N], Adagrad's sums, updated; 0 for SGD
    samples: Integer  # B
    width: Integer  # N
    rate: Real
    epsilon: Real  # of Adagrad
    overwrite: Integer
    bfloat16: Integer  # whether gradient, x0, up and d_up are bfloat16


@njit(fastmath=FAST)
def _back_float32(gradient: Any, x0: Any, up: Any, d_up: Any, d_x0: Any, adds: Any, sums: Any) -> None:
    for column in range(len(sums)):
        value = gradient[column]
        product = value * x0[column]
        d_up[column] = product
        sums[column] += product
        d_x0[column] = value * up[column] + (d_x0[column] if adds else np.float32(0))


@njit(fastmath=FAST)
def _back_bfloat16(gradient: Any, x0: Any, up: Any, d_up: Any, d_x0: Any, adds: Any, sums: Any) -> None:
    for column in range(len(sums)):
        value = from_bfloat16(gradient[column])
        product = value * from_bfloat16(x0[column])
        d_up[column] = to_bfloat16(product)
        sums[column] += product
        d_x0[column] = value * from_bfloat16(up[column]) + (d_x0[column] if adds else np.float32(0))


def _cross_backward(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    samples, width, adds = args.samples, args.width, args.overwrite == 0
    start, stop = share((width + LINE - 1) // LINE)
    left, right = start * LINE, min(stop * LINE, width)
    gradient, half_gradient = (
        float32_array(args.gradient, samples, width),
        bfloat16_array(args.gradient, samples, width),
    )
    x0, half_x0 = float32_array(args.x0, samples, width), bfloat16_array(args.x0, samples, width)
    up, half_up = float32_array(args.up, samples, width), bfloat16_array(args.up, samples, width)
    d_up, half_d_up = float32_array(args.d_up, samples, width), bfloat16_array(args.d_up, samples, width)
    d_x0 = float32_array(args.d_x0, samples, width)
    sums = np.zeros(max(right - left, 0), np.float32)
    for sample in range(samples):
        if args.bfloat16:
            _back_bfloat16(
                half_gradient[sample, left:right],
                half_x0[sample, left:right],
                half_up[sample, left:right],
                half_d_up[sample, left:right],
                d_x0[sample, left:right],
                adds,
                sums,
            )
        else:
            _back_float32(
                gradient[sample, left:right],
                x0[sample, left:right],
                up[sample, left:right],
                d_up[sample, left:right],
                d_x0[sample, left:right],
                adds,
                sums,
            )
    update_bias(args, left, right, sums)


@arguments
class GradientSum(Arguments):
    """Arguments of `gradient_sum`."""

    total: Address  # float32 [count], `gradient` is added
    gradient: Address  # bfloat16 [count]
    count: Integer


@njit(fastmath=FAST)
def _add_bfloat16(total: Any, gradient: Any) -> None:
    for position in range(len(total)):
        total[position] += from_bfloat16(gradient[position])


def _gradient_sum(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    total, gradient = float32_array(args.total, 1, args.count), bfloat16_array(args.gradient, 1, args.count)
    start, stop = share((args.count + LINE - 1) // LINE)
    part = slice(start * LINE, min(stop * LINE, args.count))
    _add_bfloat16(total[0, part], gradient[0, part])


@cache
def gradient_sum() -> ParallelLoop[GradientSum]:
    """Return the loop that adds a bfloat16 gradient to a float32 one. PyTorch makes a float32 copy of it first."""
    return ParallelLoop(_gradient_sum, GradientSum)


@cache
def cross_backward() -> ParallelLoop[CrossBackward]:
    """Return the loop for the gradients of a layer's factors, which also updates its bias.

    Each thread sums its own columns, so the sums over samples do not depend on the number of threads.
    """
    return ParallelLoop(_cross_backward, CrossBackward)
