"""What a training step on the CPU does between its matrix products.

B samples, T tables, F = T + 1 features, D embedding dimension, N width of a layer. Activations are float32 or
bfloat16 ("halves"); tables, weights, sums and the loss are float32 or wider.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit

from mlperf.kernels.parallel import (
    FAST,
    ParallelLoop,
    doubles,
    floats,
    from_bfloat16,
    halves,
    longs,
    prefetch,
    reals,
    share,
    thread,
    to_bfloat16,
    whole_numbers,
)

# Columns that one cache line of float32 holds: loops that share out columns give whole lines to a thread.
_LINE = 16

# Above this many values in a feature, products of pairs are summed along the feature, below across features.
_SHORT_FEATURE = 32

# Samples whose rows are asked for before they are used.
_AHEAD = 2

# Logarithms and variances are cut as in mlperf.model.loss.
_LEAST_LOG = -100.0
_LEAST_VARIANCE = 1e-12


@cache
def make_interaction(tables: int, dimension: int, itself: bool) -> tuple[ParallelLoop, ParallelLoop]:
    """Return the loops of lookup and dot interaction, forward and backward, for these sizes.

    Sizes are constants to the compiler, which unrolls and vectorizes by them. Both loops take the addresses of
    ids int64 [T, B], first_row int64 [T], the block of tables float32 [R, D], bottom [B, D], `out` and scratch,
    then B, R, and whether activations are bfloat16. Forward writes out [B, width of the interaction]. Backward
    takes its gradient after `bottom`, and writes d bottom [B, D] and d rows float32 [B, T, D].
    """
    count = tables + 1
    padded = (count + _LINE - 1) // _LINE * _LINE
    first = 0 if itself else 1
    pairs = count * (count + 1) // 2 if itself else count * (count - 1) // 2
    diagonal = 1 if itself else 0
    short = dimension <= _SHORT_FEATURE

    @njit(fastmath=FAST)
    def gather(
        sample: Any,
        ids: Any,
        first_row: Any,
        block_address: Any,
        block: Any,
        bottom: Any,
        low: Any,
        half: Any,
        features: Any,
    ) -> None:
        for d in range(dimension):
            features[0, d] = from_bfloat16(half[sample, d]) if low else bottom[sample, d]
        if sample + _AHEAD < len(bottom):
            for table in range(tables):
                row = ids[table, sample + _AHEAD] + first_row[table, 0]
                for line in range((dimension + _LINE - 1) // _LINE):
                    prefetch(block_address + 4 * (row * dimension + line * _LINE))
        for table in range(tables):
            row = ids[table, sample] + first_row[table, 0]
            for d in range(dimension):
                features[table + 1, d] = block[row, d]

    @njit(fastmath=FAST)
    def products_across(features: Any, turned: Any, out: Any) -> None:
        for i in range(count):
            for d in range(dimension):
                turned[d, i] = features[i, d]
        position = 0
        for i in range(first, count):
            for j in range(padded):  # more than asked for: the next row of products overwrites the rest
                total = np.float32(0)
                for d in range(dimension):
                    total += features[i, d] * turned[d, j]
                out[0, position + j] = total
            position += i + diagonal

    @njit(fastmath=FAST)
    def products_along(features: Any, turned: Any, out: Any) -> None:
        position = 0
        for i in range(first, count):
            j = 0
            while j + 4 <= i + diagonal:
                sum0 = sum1 = sum2 = sum3 = np.float32(0)
                for d in range(dimension):
                    value = features[i, d]
                    sum0 += value * features[j, d]
                    sum1 += value * features[j + 1, d]
                    sum2 += value * features[j + 2, d]
                    sum3 += value * features[j + 3, d]
                out[0, position] = sum0
                out[0, position + 1] = sum1
                out[0, position + 2] = sum2
                out[0, position + 3] = sum3
                position += 4
                j += 4
            while j < i + diagonal:
                total = np.float32(0)
                for d in range(dimension):
                    total += features[i, d] * features[j, d]
                out[0, position] = total
                position += 1
                j += 1

    products = products_across if short else products_along
    scratch_size = scratch_floats(tables, dimension)

    def forward(arguments: Any) -> None:
        told = whole_numbers(arguments)
        samples, rows, low = told[6], told[7], told[8] != 0
        ids, first_row = longs(told[0], tables, samples), longs(told[1], tables, 1)
        block = floats(told[2], rows, dimension)
        bottom, half = floats(told[3], samples, dimension), halves(told[3], samples, dimension)
        out, half_out = floats(told[4], samples, dimension + pairs), halves(told[4], samples, dimension + pairs)
        mine = told[5] + 4 * scratch_size * thread()
        features = floats(mine, count, dimension)
        turned = floats(mine + 4 * count * dimension, dimension, padded)
        dots = floats(mine + 4 * (count + padded) * dimension, 1, pairs + padded)
        start, stop = share(samples)
        for sample in range(start, stop):
            gather(sample, ids, first_row, told[2], block, bottom, low, half, features)
            products(features, turned, dots)
            if low:
                for d in range(dimension):
                    half_out[sample, d] = half[sample, d]
                for pair in range(pairs):
                    half_out[sample, dimension + pair] = to_bfloat16(dots[0, pair])
            else:
                for d in range(dimension):
                    out[sample, d] = bottom[sample, d]
                for pair in range(pairs):
                    out[sample, dimension + pair] = dots[0, pair]

    def backward(arguments: Any) -> None:
        told = whole_numbers(arguments)
        samples, rows, low = told[8], told[9], told[10] != 0
        ids, first_row = longs(told[0], tables, samples), longs(told[1], tables, 1)
        block = floats(told[2], rows, dimension)
        bottom, half = floats(told[3], samples, dimension), halves(told[3], samples, dimension)
        grad, half_grad = floats(told[4], samples, dimension + pairs), halves(told[4], samples, dimension + pairs)
        grad_bottom, half_bottom = floats(told[5], samples, dimension), halves(told[5], samples, dimension)
        grad_rows = floats(told[6], samples * tables, dimension)
        mine = told[7] + 4 * scratch_size * thread()
        features = floats(mine, count, dimension)
        symmetric = floats(mine + 4 * count * dimension, count, count)
        start, stop = share(samples)
        for sample in range(start, stop):
            gather(sample, ids, first_row, told[2], block, bottom, low, half, features)
            position = dimension
            for i in range(count):
                symmetric[i, i] = 0
                for j in range(i + diagonal):
                    value = from_bfloat16(half_grad[sample, position]) if low else grad[sample, position]
                    symmetric[i, j] = value
                    symmetric[j, i] = value
                    position += 1
                if itself:
                    symmetric[i, i] *= np.float32(2)  # d(f·f)/df = 2f
            for d in range(dimension):
                total = from_bfloat16(half_grad[sample, d]) if low else grad[sample, d]
                for j in range(count):
                    total += symmetric[0, j] * features[j, d]
                if low:
                    half_bottom[sample, d] = to_bfloat16(total)
                else:
                    grad_bottom[sample, d] = total
            for i in range(tables):
                for d in range(dimension):
                    total = np.float32(0)
                    for j in range(count):
                        total += symmetric[i + 1, j] * features[j, d]
                    grad_rows[sample * tables + i, d] = total

    return ParallelLoop(forward), ParallelLoop(backward)


def scratch_floats(tables: int, dimension: int) -> int:
    """Return the float32 values that a thread of the interaction needs for itself, in whole cache lines."""
    count = tables + 1
    padded = (count + _LINE - 1) // _LINE * _LINE
    needed = (count + padded) * dimension + max(count * count, count * (count + 1) // 2 + padded)
    return (needed + _LINE - 1) // _LINE * _LINE


@cache
def make_table_update(dimension: int) -> ParallelLoop:
    """Return the loop that subtracts rate times gradients from the rows of a batch.

    Addresses of ids int64 [T, B], first_row int64 [T], the block float32 [R, D], gradients float32 [B, T, D]; T, B,
    R and the rate. A thread has some columns of some tables to itself: ids that occur often need no atomics, and a
    row's gradients are added in the order of the samples whatever the number of threads.
    """
    pieces = (dimension + _LINE - 1) // _LINE

    def update(arguments: Any) -> None:
        told = whole_numbers(arguments)
        tables, samples, rows = told[4], told[5], told[6]
        rate = np.float32(reals(arguments)[7])
        ids, first_row = longs(told[0], tables, samples), longs(told[1], tables, 1)
        block, gradients = floats(told[2], rows, dimension), floats(told[3], samples * tables, dimension)
        start, stop = share(tables * pieces)
        while start < stop:
            table = start // pieces
            last = min(stop, (table + 1) * pieces)
            left, right = (start - table * pieces) * _LINE, min((last - table * pieces) * _LINE, dimension)
            if right - left == dimension:
                for sample in range(samples):
                    row = ids[table, sample] + first_row[table, 0]
                    for d in range(dimension):  # a constant, unlike the general case below
                        block[row, d] -= rate * gradients[sample * tables + table, d]
            else:
                for sample in range(samples):
                    row = ids[table, sample] + first_row[table, 0]
                    for d in range(left, right):
                        block[row, d] -= rate * gradients[sample * tables + table, d]
            start = last

    return ParallelLoop(update)


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
    start, stop = share((width + _LINE - 1) // _LINE)
    left, right = start * _LINE, min(stop * _LINE, width)
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
    start, stop = share((count + _LINE - 1) // _LINE)
    mine = slice(start * _LINE, min(stop * _LINE, count))
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
    float32 [B], d hidden [B, N], partial sums float64 [threads, N + 3]; B, N, kind of loss (0: mse, 1: cross-entropy),
    weights of labels 0 and 1, threshold, whether hidden is bfloat16.

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
