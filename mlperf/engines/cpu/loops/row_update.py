"""Update of embedding rows from the sums of their gradients on the CPU: Adagrad, row-wise Adagrad, 16-bit tables.

These need the whole sum of a row's gradients: Adagrad squares it, and a row in 16 bits is rounded once per step.
The ids are grouped by the row they read (`row_groups`). All ids of a bag have the gradient of the bag.

B samples, T tables, D embedding dimension, R rows of all tables, L ids, S sums per row: D for Adagrad, 1 if
row-wise.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import carray, literally, njit
from numba.extending import register_jitable

from mlperf.engines.cpu.loops.adagrad import adagrad_direction
from mlperf.engines.cpu.loops.intrinsics import (
    FAST,
    fetch_and_add,
    float32_array,
    int32_array,
    int64_array,
    thread,
    uint16_array,
    uint32_array,
    whole_lines,
)
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, Real, arguments
from mlperf.engines.cpu.loops.rounding import draw, random_words, round_to_bfloat16, round_to_float16
from mlperf.engines.cpu.loops.row_groups import NONE
from mlperf.engines.cpu.loops.table_rows import (
    BFLOAT16,
    FLOAT32,
    load,
    prefetch_row,
    value_size,
)

# Optimizers, compile-time constants of the loops.
SGD, ADAGRAD, ROW_WISE_ADAGRAD = 0, 1, 2

# Groups of a table that a thread takes at once.
_CHUNK = 32

# Rows are prefetched this many groups ahead.
_AHEAD = 8


@register_jitable
def scratch_size(dimension: int) -> int:
    """Return the scratch memory per thread in float32 values, whole cache lines: a gradient and random words."""
    return whole_lines(dimension) + whole_lines(random_words(dimension))


@arguments
class RowUpdate(Arguments):
    """Arguments of the update."""

    ids: Address  # int64 [L], sizes and before: as for `row_groups`
    sizes: Address  # int64 [T]
    before: Address  # int64 [T]
    first_row: Address  # int64 [T], first row of each table in the block
    block: Address  # [R, D], the rows of all tables, updated
    sums: Address  # float32 [R, S], Adagrad's sums, updated; not used by SGD
    bag_gradients: Address  # float32 [B, stride, D]; the first T of a sample are those of its bags
    leaders: Address  # int32 [L], as counts and following from `row_groups`
    counts: Address  # int64 [T]
    following: Address  # int32 [L]
    next_chunk: Address  # int64 [1], the next chunk of groups that no thread has taken
    scratch: Address  # float32 [threads, scratch_size]
    tables: Integer  # T
    samples: Integer  # B
    stride: Integer
    rows: Integer  # R
    dimension: Integer  # D
    rate: Real
    epsilon: Real
    seed: Integer  # of the rounding
    step: Integer  # number of optimizer steps before this one


# error_model: the divisor is not 0.
@njit(error_model="numpy")
def _sample(position: Any, size: Any) -> Any:
    """Return the sample of an id. size: ids of a bag of its table."""
    return np.int64(position) if size == 1 else np.int64(np.uint32(position) // np.uint32(size))


@njit(fastmath=False)
def _sum_group(
    gradients: Any, following: Any, position: Any, table: Any, size: Any, stride: Any, total: Any
) -> None:
    """Write the sum of the gradients of a group of at least two to `total` [1, D], in the order of the ids."""
    other = following[0, position]
    first, second = _sample(position, size) * stride + table, _sample(other, size) * stride + table
    for d in range(total.shape[1]):
        total[0, d] = gradients[first, d] + gradients[second, d]
    other = following[0, other]
    while other != NONE:
        bag = _sample(other, size) * stride + table
        for d in range(total.shape[1]):
            total[0, d] += gradients[bag, d]
        other = following[0, other]


@njit(fastmath=FAST, error_model="numpy")
def _mean_square(gradient: Any, dimension: Any) -> Any:
    total = np.float32(0)
    for d in range(dimension):
        total += gradient[0, d] * gradient[0, d]
    return total / np.float32(dimension)


# Like PyTorch, round only once where the CPU has an instruction for the product and the difference.
@njit(fastmath={"contract"})
def _stepped(value: Any, change: Any, rate: Any) -> Any:
    return value - rate * change


@njit(fastmath=False, error_model="numpy")
def _update_row(
    args: Any, row: Any, gradient: Any, random: Any, optimizer: Any, kind: Any, dimension: Any, per_row: Any
) -> None:
    """Update a row and its sums. gradient: float32 [1, D]. random: 16 bits for each value, uint16 [1, D]."""
    literally(optimizer)
    literally(kind)
    block = float32_array(args.block, args.rows, dimension)
    half_block = uint16_array(args.block, args.rows, dimension)
    sums = float32_array(args.sums, args.rows, per_row)
    rate, epsilon = np.float32(args.rate), np.float32(args.epsilon)
    root = np.float32(0)
    if optimizer == ROW_WISE_ADAGRAD:
        sums[row, 0] += _mean_square(gradient, dimension)
        root = math.sqrt(sums[row, 0]) + epsilon
    for d in range(dimension):
        change = gradient[0, d]
        if optimizer == ADAGRAD:
            change = adagrad_direction(change, sums[row], d, epsilon)
        elif optimizer == ROW_WISE_ADAGRAD:
            change /= root
        value = _stepped(load(block, half_block, row, d, kind), change, rate)
        if kind == FLOAT32:
            block[row, d] = value
        elif kind == BFLOAT16:
            half_block[row, d] = round_to_bfloat16(value, random[0, d])
        else:
            half_block[row, d] = round_to_float16(value, random[0, d])


@cache
def make_row_update(optimizer: int, kind: int) -> ParallelLoop[RowUpdate]:
    """Return the loop that updates the rows of a batch. optimizer: one of the constants above. kind: of the rows.

    A thread takes the next groups as soon as it has updated its last ones, because groups can have any size. A row
    is updated by one thread, with its gradients added in the order of the samples, so the result does not depend
    on which thread it is.
    """
    size = value_size(kind)

    def row_update(pointer: Any) -> None:
        args = carray(pointer, 1)[0]
        tables, samples, dimension, stride = args.tables, args.samples, args.dimension, args.stride
        per_row = dimension if optimizer == ADAGRAD else 1
        sizes, before = int64_array(args.sizes, 1, tables), int64_array(args.before, 1, tables)
        first_row, counts = int64_array(args.first_row, 1, tables), int64_array(args.counts, 1, tables)
        gradients = float32_array(args.bag_gradients, samples * stride, dimension)
        words = random_words(dimension)
        own_scratch = args.scratch + 4 * scratch_size(dimension) * thread()
        own_words = own_scratch + 4 * whole_lines(dimension)
        total = float32_array(own_scratch, 1, dimension)
        drawn, random = uint32_array(own_words, 1, words), uint16_array(own_words, 1, 2 * words)
        table, chunks_before = 0, 0
        while True:
            chunk = fetch_and_add(args.next_chunk)
            while table < tables and chunk >= chunks_before + (counts[0, table] + _CHUNK - 1) // _CHUNK:
                chunks_before += (counts[0, table] + _CHUNK - 1) // _CHUNK
                table += 1
            if table == tables:
                break
            count, size_of_bag = counts[0, table], sizes[0, table]
            positions, first = samples * size_of_bag, samples * before[0, table]
            ids = int64_array(args.ids + 8 * first, 1, positions)
            leaders = int32_array(args.leaders + 4 * first, 1, positions)
            following = int32_array(args.following + 4 * first, 1, positions)
            start = (chunk - chunks_before) * _CHUNK
            for number in range(start, min(start + _CHUNK, count)):
                if number + _AHEAD < count:
                    ahead = leaders[0, number + _AHEAD]
                    row = ids[0, ahead] + first_row[0, table]
                    prefetch_row(args.block, row, dimension, size)
                    if optimizer != SGD:
                        prefetch_row(args.sums, row, per_row, 4)
                    bag = _sample(ahead, size_of_bag) * stride + table
                    prefetch_row(args.bag_gradients, bag, dimension, 4)
                position = leaders[0, number]
                row = ids[0, position] + first_row[0, table]
                if kind != FLOAT32:
                    draw(drawn, row, args.step, args.seed)
                alone = _sample(position, size_of_bag) * stride + table
                gradient = gradients[alone : alone + 1]
                if following[0, position] != NONE:
                    _sum_group(gradients, following, position, table, size_of_bag, stride, total)
                    gradient = total
                _update_row(args, row, gradient, random, optimizer, kind, dimension, per_row)

    return ParallelLoop(row_update, RowUpdate)
