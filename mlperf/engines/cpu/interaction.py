"""Lookup, dot interaction and table update on the CPU, sample by sample: what was gathered stays in the cache.

B samples, T tables, F = T + 1 features, D embedding dimension, P pairs of features, R rows of all tables. Sizes of
the model are constants to the compiler, which unrolls and vectorizes by them: free variables of the loops, and
literal arguments of what they call (a function among the free variables would keep a loop out of numba's cache).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import literally, njit

from mlperf.engines.cpu.parallel import (
    FAST,
    LINE,
    ParallelLoop,
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
from mlperf.models.layers.pairs import pair_count

# Above this many values in a feature, products of pairs are summed along the feature, below across features.
_SHORT_FEATURE = 32

# Samples whose rows are asked for before they are used.
_AHEAD = 2


def _lines(count: int) -> int:
    """Return how many cache lines `count` float32 fill."""
    return (count + LINE - 1) // LINE


def _padded_features(tables: int) -> int:
    return LINE * _lines(tables + 1)


def scratch_floats(tables: int, dimension: int) -> int:
    """Return the float32 values that a thread of the interaction needs for itself, in whole cache lines."""
    padded = _padded_features(tables)
    needed = (tables + 1 + padded) * dimension + (tables + 1) * (tables + 2) + padded
    return LINE * _lines(needed)


@njit(fastmath=FAST)
def _gather(
    sample: Any, told: Any, samples: Any, rows: Any, low: Any, features: Any, tables: Any, dimension: Any
) -> None:
    """Put the features of a sample into `features` [F, D], and ask for the rows of a later one."""
    literally(tables)
    literally(dimension)
    ids, first_row = longs(told[0], tables, samples), longs(told[1], tables, 1)
    block = floats(told[2], rows, dimension)
    bottom, half = floats(told[3], samples, dimension), halves(told[3], samples, dimension)
    for d in range(dimension):
        features[0, d] = from_bfloat16(half[sample, d]) if low else bottom[sample, d]
    if sample + _AHEAD < samples:
        for table in range(tables):
            row = ids[table, sample + _AHEAD] + first_row[table, 0]
            for column in range(0, dimension, LINE):
                prefetch(told[2] + 4 * (row * dimension + column))
    for table in range(tables):
        row = ids[table, sample] + first_row[table, 0]
        for d in range(dimension):
            features[table + 1, d] = block[row, d]


@njit(fastmath=FAST)
def _products_across(
    features: Any, turned: Any, out: Any, diagonal: Any, count: Any, padded: Any, dimension: Any
) -> None:
    """Multiply one feature with all others at once, for short features."""
    literally(count)
    literally(padded)
    literally(dimension)
    for i in range(count):
        for d in range(dimension):
            turned[d, i] = features[i, d]
    position = 0
    for i in range(1 - diagonal, count):
        for j in range(padded):  # more than asked for: the next row of products overwrites the rest
            total = np.float32(0)
            for d in range(dimension):
                total += features[i, d] * turned[d, j]
            out[0, position + j] = total
        position += i + diagonal


@njit(fastmath=FAST)
def _products_along(features: Any, out: Any, diagonal: Any, count: Any, dimension: Any) -> None:
    """Multiply one feature with four others at a time, for long features."""
    literally(dimension)
    position = 0
    for i in range(1 - diagonal, count):
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


@cache
def make_forward(tables: int, dimension: int, itself: bool) -> ParallelLoop:
    """Return the loop of lookup and interaction.

    It is told the addresses of ids int64 [T, B], first_row int64 [T], the block of tables float32 [R, D], bottom
    [B, D], the interaction to write [B, D + P], scratch; then B, R, and whether activations are bfloat16.
    """
    count, padded, pairs = tables + 1, _padded_features(tables), pair_count(tables + 1, itself=itself)
    scratch, diagonal, short = scratch_floats(tables, dimension), int(itself), dimension <= _SHORT_FEATURE

    def forward(arguments: Any) -> None:
        told = whole_numbers(arguments)
        samples, rows, low = told[6], told[7], told[8] != 0
        out, half_out = floats(told[4], samples, dimension + pairs), halves(told[4], samples, dimension + pairs)
        mine = told[5] + 4 * scratch * thread()
        features = floats(mine, count, dimension)
        turned = floats(mine + 4 * count * dimension, dimension, padded)
        dots = floats(mine + 4 * (count + padded) * dimension, 1, pairs + padded)
        start, stop = share(samples)
        for sample in range(start, stop):
            _gather(sample, told, samples, rows, low, features, tables, dimension)
            if short:
                _products_across(features, turned, dots, diagonal, count, padded, dimension)
            else:
                _products_along(features, dots, diagonal, count, dimension)
            if low:
                for d in range(dimension):
                    half_out[sample, d] = to_bfloat16(features[0, d])
                for pair in range(pairs):
                    half_out[sample, dimension + pair] = to_bfloat16(dots[0, pair])
            else:
                for d in range(dimension):
                    out[sample, d] = features[0, d]
                for pair in range(pairs):
                    out[sample, dimension + pair] = dots[0, pair]

    return ParallelLoop(forward)


@njit(fastmath=FAST)
def _arrange(gradient: Any, half_gradient: Any, low: Any, symmetric: Any, diagonal: Any, dimension: Any) -> None:
    """Arrange a sample's gradients of pairs as a symmetric matrix [F, F], twice the gradient on its diagonal."""
    position = dimension
    for i in range(len(symmetric)):
        symmetric[i, i] = 0
        for j in range(i + diagonal):
            value = from_bfloat16(half_gradient[position]) if low else gradient[position]
            symmetric[i, j] = value
            symmetric[j, i] = value
            position += 1
        symmetric[i, i] *= np.float32(2)  # d(f·f)/df = 2f


@njit(fastmath=FAST)
def _row_gradients(features: Any, symmetric: Any, out: Any, tables: Any, dimension: Any) -> None:
    """Multiply the symmetric matrix with the features: the gradients of all but the first, [T, D]."""
    literally(tables)
    literally(dimension)
    for i in range(tables):
        for d in range(dimension):
            total = np.float32(0)
            for j in range(tables + 1):
                total += symmetric[i + 1, j] * features[j, d]
            out[i, d] = total


@cache
def make_backward(tables: int, dimension: int, itself: bool) -> ParallelLoop:
    """Return the loop of the interaction's gradients.

    It is told the addresses of ids, first_row, block and bottom as the forward loop is, of the gradient of the
    interaction [B, D + P], of d bottom [B, D] and d rows float32 [B, T, D] to write, scratch; then B, R, and
    whether activations are bfloat16.
    """
    count, pairs = tables + 1, pair_count(tables + 1, itself=itself)
    scratch, diagonal = scratch_floats(tables, dimension), int(itself)

    def backward(arguments: Any) -> None:
        told = whole_numbers(arguments)
        samples, rows, low = told[8], told[9], told[10] != 0
        width = dimension + pairs
        gradient, half_gradient = floats(told[4], samples, width), halves(told[4], samples, width)
        bottom, half_bottom = floats(told[5], samples, dimension), halves(told[5], samples, dimension)
        row_gradients = floats(told[6], samples * tables, dimension)
        mine = told[7] + 4 * scratch * thread()
        features = floats(mine, count, dimension)
        symmetric = floats(mine + 4 * count * dimension, count, count)
        start, stop = share(samples)
        for sample in range(start, stop):
            _gather(sample, told, samples, rows, low, features, tables, dimension)
            _arrange(gradient[sample], half_gradient[sample], low, symmetric, diagonal, dimension)
            for d in range(dimension):
                total = from_bfloat16(half_gradient[sample, d]) if low else gradient[sample, d]
                for j in range(count):
                    total += symmetric[0, j] * features[j, d]
                if low:
                    half_bottom[sample, d] = to_bfloat16(total)
                else:
                    bottom[sample, d] = total
            out = row_gradients[sample * tables : (sample + 1) * tables]
            _row_gradients(features, symmetric, out, tables, dimension)

    return ParallelLoop(backward)


@cache
def make_table_update(dimension: int) -> ParallelLoop:
    """Return the loop that subtracts rate times gradients from the rows of a batch.

    It is told the addresses of ids int64 [T, B], first_row int64 [T], the block float32 [R, D], gradients float32
    [B, T, D]; T, B, R and the rate. A thread has some columns of some tables to itself: ids that occur often need
    no atomics, and a row's gradients are added in the order of the samples whatever the number of threads.
    """
    pieces = _lines(dimension)

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
            left, right = (start - table * pieces) * LINE, min((last - table * pieces) * LINE, dimension)
            for sample in range(samples):
                row = ids[table, sample] + first_row[table, 0]
                if right - left == dimension:  # a constant to the compiler, unlike the rest of a shared table
                    for d in range(dimension):
                        block[row, d] -= rate * gradients[sample * tables + table, d]
                else:
                    for d in range(left, right):
                        block[row, d] -= rate * gradients[sample * tables + table, d]
            start = last

    return ParallelLoop(update)
