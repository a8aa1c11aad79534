"""Embedding lookup and dot interaction on the CPU, sample by sample to keep gathered rows in the cache.

B samples, T tables, F = T + 1 features, D embedding dimension, P pairs of features, R rows of all tables.

Model sizes are compile-time constants, so that loops are unrolled and vectorized. They are free variables of the
loops and literal arguments of helper functions; closing over a function would disable numba's cache.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, literally, njit

from mlperf.engines.cpu.loops.intrinsics import (
    FAST,
    bfloat16_array,
    float32_array,
    from_bfloat16,
    int64_array,
    share,
    thread,
    to_bfloat16,
    uint16_array,
    whole_lines,
)
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, arguments
from mlperf.engines.cpu.loops.table_rows import FLOAT16, FLOAT32, load, prefetch_row, read_quantized, stored_bytes
from mlperf.models.layers.pairs import pair_count

# Up to this dimension, one feature is multiplied with all others at once; for larger ones, with four at a time.
_SHORT_FEATURE = 32

# Rows are prefetched this many samples ahead.
_AHEAD = 2


def _padded_features(tables: int) -> int:
    return whole_lines(tables + 1)


def scratch_size(tables: int, dimension: int) -> int:
    """Return the scratch memory per thread in float32 values, rounded up to whole cache lines."""
    padded = _padded_features(tables)
    return whole_lines((tables + 1 + padded) * dimension + (tables + 1) * (tables + 2) + padded)


@njit(fastmath=FAST)
def _gather(
    sample: Any, args: Any, is_bfloat16: Any, features: Any, tables: Any, dimension: Any, kind: Any, size: Any
) -> None:
    """Write the features of a sample to `features` [F, D], and prefetch the rows of a later one.

    kind: type of the rows. size: bytes of a row.
    """
    literally(tables)
    literally(dimension)
    literally(kind)
    literally(size)
    samples = args.samples
    ids, first_row = int64_array(args.ids, tables, samples), int64_array(args.first_row, tables, 1)
    block = float32_array(args.block, args.rows, dimension)
    half_block = uint16_array(args.block, args.rows, dimension)
    bottom = float32_array(args.bottom, samples, dimension)
    half_bottom = bfloat16_array(args.bottom, samples, dimension)
    for d in range(dimension):
        features[0, d] = from_bfloat16(half_bottom[sample, d]) if is_bfloat16 else bottom[sample, d]
    if sample + _AHEAD < samples:
        for table in range(tables):
            row = ids[table, sample + _AHEAD] + first_row[table, 0]
            prefetch_row(args.block, row, size, 1)
    for table in range(tables):
        row = ids[table, sample] + first_row[table, 0]
        if kind > FLOAT16:
            read_quantized(args.block + size * row, features[table + 1], kind, 0)
            continue
        for d in range(dimension):
            features[table + 1, d] = load(block, half_block, row, d, kind)


@njit(fastmath=FAST)
def _products_across(
    features: Any, turned: Any, out: Any, diagonal: Any, count: Any, padded: Any, dimension: Any
) -> None:
    """Compute the products of pairs of short features: one feature with all others at once."""
    literally(count)
    literally(padded)
    literally(dimension)
    for i in range(count):
        for d in range(dimension):
            turned[d, i] = features[i, d]
    position = 0
    for i in range(1 - diagonal, count):
        for j in range(padded):  # writes past the row; the next row overwrites the excess
            total = np.float32(0)
            for d in range(dimension):
                total += features[i, d] * turned[d, j]
            out[0, position + j] = total
        position += i + diagonal


@njit(fastmath=FAST)
def _products_along(features: Any, out: Any, diagonal: Any, count: Any, dimension: Any) -> None:
    """Compute the products of pairs of long features: one feature with four others at a time."""
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


@arguments
class Forward(Arguments):
    """Arguments of the forward loop."""

    ids: Address  # int64 [T, B]
    first_row: Address  # int64 [T], first row of each table in the block
    block: Address  # [R, D], the rows of all tables
    bottom: Address  # [B, D], the bottom MLP's output
    interacted: Address  # [B, D + P], written
    scratch: Address  # float32 [threads, scratch_size]
    samples: Integer  # B
    rows: Integer  # R
    bfloat16: Integer  # whether bottom and interacted are bfloat16


@cache
def make_forward(
    tables: int, dimension: int, self_interaction: bool, kind: int = FLOAT32
) -> ParallelLoop[Forward]:
    """Return the loop for lookup and interaction. kind: type of the rows."""
    size = stored_bytes(kind, dimension)
    count, padded, pairs = (
        tables + 1,
        _padded_features(tables),
        pair_count(tables + 1, self_interaction=self_interaction),
    )
    scratch, diagonal, is_short = (
        scratch_size(tables, dimension),
        int(self_interaction),
        dimension <= _SHORT_FEATURE,
    )

    def forward(pointer: Any) -> None:
        args = carray(pointer, 1)[0]
        samples, is_bfloat16 = args.samples, args.bfloat16 != 0
        out = float32_array(args.interacted, samples, dimension + pairs)
        half_out = bfloat16_array(args.interacted, samples, dimension + pairs)
        own_scratch = args.scratch + 4 * scratch * thread()
        features = float32_array(own_scratch, count, dimension)
        turned = float32_array(own_scratch + 4 * count * dimension, dimension, padded)
        dots = float32_array(own_scratch + 4 * (count + padded) * dimension, 1, pairs + padded)
        start, stop = share(samples)
        for sample in range(start, stop):
            _gather(sample, args, is_bfloat16, features, tables, dimension, kind, size)
            if is_short:
                _products_across(features, turned, dots, diagonal, count, padded, dimension)
            else:
                _products_along(features, dots, diagonal, count, dimension)
            if is_bfloat16:
                for d in range(dimension):
                    half_out[sample, d] = to_bfloat16(features[0, d])
                for pair in range(pairs):
                    half_out[sample, dimension + pair] = to_bfloat16(dots[0, pair])
            else:
                for d in range(dimension):
                    out[sample, d] = features[0, d]
                for pair in range(pairs):
                    out[sample, dimension + pair] = dots[0, pair]

    return ParallelLoop(forward, Forward)


@njit(fastmath=FAST)
def _symmetric_gradient(
    gradient: Any, half_gradient: Any, is_bfloat16: Any, symmetric: Any, diagonal: Any, dimension: Any
) -> None:
    """Write the gradients of a sample's pairs to a symmetric matrix [F, F], doubled on its diagonal."""
    position = dimension
    for i in range(len(symmetric)):
        symmetric[i, i] = 0
        for j in range(i + diagonal):
            value = from_bfloat16(half_gradient[position]) if is_bfloat16 else gradient[position]
            symmetric[i, j] = value
            symmetric[j, i] = value
            position += 1
        symmetric[i, i] *= np.float32(2)  # d(f·f)/df = 2f


@njit(fastmath=FAST)
def _row_gradients(features: Any, symmetric: Any, out: Any, tables: Any, dimension: Any) -> None:
    """Multiply the symmetric matrix with the features: the gradients of the rows, [T, D]."""
    literally(tables)
    literally(dimension)
    for i in range(tables):
        for d in range(dimension):
            total = np.float32(0)
            for j in range(tables + 1):
                total += symmetric[i + 1, j] * features[j, d]
            out[i, d] = total


@arguments
class Backward(Arguments):
    """Arguments of the backward loop."""

    ids: Address  # int64 [T, B]
    first_row: Address  # int64 [T], first row of each table in the block
    block: Address  # [R, D], the rows of all tables
    bottom: Address  # [B, D], the bottom MLP's output
    gradient: Address  # [B, D + P], gradient of the interaction
    bottom_gradient: Address  # [B, D], written
    row_gradients: Address  # float32 [B, T, D], written
    scratch: Address  # float32 [threads, scratch_size]
    samples: Integer  # B
    rows: Integer  # R
    bfloat16: Integer  # whether bottom, gradient and bottom_gradient are bfloat16


@cache
def make_backward(
    tables: int, dimension: int, self_interaction: bool, kind: int = FLOAT32
) -> ParallelLoop[Backward]:
    """Return the loop for the gradients of bottom output and embedding rows. kind: type of the rows."""
    size = stored_bytes(kind, dimension)
    count, pairs = tables + 1, pair_count(tables + 1, self_interaction=self_interaction)
    scratch, diagonal = scratch_size(tables, dimension), int(self_interaction)

    def backward(pointer: Any) -> None:
        args = carray(pointer, 1)[0]
        samples, is_bfloat16, width = args.samples, args.bfloat16 != 0, dimension + pairs
        gradient = float32_array(args.gradient, samples, width)
        half_gradient = bfloat16_array(args.gradient, samples, width)
        bottom = float32_array(args.bottom_gradient, samples, dimension)
        half_bottom = bfloat16_array(args.bottom_gradient, samples, dimension)
        row_gradients = float32_array(args.row_gradients, samples * tables, dimension)
        own_scratch = args.scratch + 4 * scratch * thread()
        features = float32_array(own_scratch, count, dimension)
        symmetric = float32_array(own_scratch + 4 * count * dimension, count, count)
        start, stop = share(samples)
        for sample in range(start, stop):
            _gather(sample, args, is_bfloat16, features, tables, dimension, kind, size)
            _symmetric_gradient(
                gradient[sample], half_gradient[sample], is_bfloat16, symmetric, diagonal, dimension
            )
            for d in range(dimension):
                total = from_bfloat16(half_gradient[sample, d]) if is_bfloat16 else gradient[sample, d]
                for j in range(count):
                    total += symmetric[0, j] * features[j, d]
                if is_bfloat16:
                    half_bottom[sample, d] = to_bfloat16(total)
                else:
                    bottom[sample, d] = total
            out = row_gradients[sample * tables : (sample + 1) * tables]
            _row_gradients(features, symmetric, out, tables, dimension)

    return ParallelLoop(backward, Backward)
