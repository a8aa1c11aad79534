"""Embedding lookup with several ids per table on the CPU: the sums of the rows of each bag, next to each other.

B samples, T tables, D embedding dimension, R rows of all tables, L ids. Table k has sizes[k] ids of each sample.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import carray, literally, njit
from numba.extending import register_jitable

from mlperf.engines.cpu.loops.intrinsics import (
    FAST,
    bfloat16_array,
    float32_array,
    int64_array,
    share,
    thread,
    to_bfloat16,
    uint16_array,
    whole_lines,
)
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, arguments
from mlperf.engines.cpu.loops.table_rows import FLOAT16, FLOAT32, load, prefetch_row, read_quantized

# Rows are prefetched this many ids ahead.
_AHEAD = 12


@register_jitable
def scratch_size(dimension: int) -> int:
    """Return the scratch memory per thread in float32 values, whole cache lines: a sum."""
    return whole_lines(dimension)


@arguments
class Pooling(Arguments):
    """Arguments of the loop."""

    ids: Address  # int64 [L], table by table, then sample by sample
    sizes: Address  # int64 [T], ids of a bag of each table
    first_row: Address  # int64 [T], first row of each table in the block
    block: Address  # [R, D], the rows of all tables
    bottom: Address  # [B, D], the bottom MLP's output
    joined: Address  # [B, (T + 1) * D], written: the bottom MLP's output and the sums of each table
    scratch: Address  # float32 [threads, scratch_size]
    samples: Integer  # B
    tables: Integer  # T
    rows: Integer  # R
    dimension: Integer  # D
    row_bytes: Integer  # bytes of a row
    bfloat16: Integer  # whether bottom and joined are bfloat16


@njit(fastmath=FAST)
def _add_row(total: Any, address: Any, block: Any, half_block: Any, row: Any, kind: Any, is_first: Any) -> None:
    """Add a row to `total` [1, D], or write it there if it is the first one of its bag. address: of the row."""
    literally(kind)
    if kind > FLOAT16:
        if is_first:
            read_quantized(address, total[0], kind, 0)
        else:
            read_quantized(address, total[0], kind, 1)
    elif is_first:
        for d in range(total.shape[1]):
            total[0, d] = load(block, half_block, row, d, kind)
    else:
        for d in range(total.shape[1]):
            total[0, d] += load(block, half_block, row, d, kind)


@cache
def make_pooling(kind: int = FLOAT32) -> ParallelLoop[Pooling]:
    """Return the loop for tables whose rows are of type `kind`.

    The ids of a table are read one after the other, so that the rows of the next ones can be prefetched. The rows
    of a bag are added in the order of its ids.
    """

    def pooling(pointer: Any) -> None:
        args = carray(pointer, 1)[0]
        samples, tables, dimension, is_bfloat16 = args.samples, args.tables, args.dimension, args.bfloat16 != 0
        sizes, first_rows = int64_array(args.sizes, 1, tables), int64_array(args.first_row, 1, tables)
        block, half_block = (
            float32_array(args.block, args.rows, dimension),
            uint16_array(args.block, args.rows, dimension),
        )
        bottom, half_bottom = (
            float32_array(args.bottom, samples, dimension),
            bfloat16_array(args.bottom, samples, dimension),
        )
        features = samples * (tables + 1)
        joined, half_joined = (
            float32_array(args.joined, features, dimension),
            bfloat16_array(args.joined, features, dimension),
        )
        total = float32_array(args.scratch + 4 * scratch_size(dimension) * thread(), 1, dimension)
        start, stop = share(samples)
        for sample in range(start, stop):
            feature = sample * (tables + 1)
            for d in range(dimension):
                if is_bfloat16:
                    half_joined[feature, d] = half_bottom[sample, d]
                else:
                    joined[feature, d] = bottom[sample, d]
        before = 0
        for table in range(tables):
            count, first_row = sizes[0, table], first_rows[0, table]
            ids = int64_array(args.ids + 8 * samples * before, 1, samples * count)
            before += count
            last = stop * count
            for sample in range(start, stop):
                for position in range(sample * count, (sample + 1) * count):
                    if position + _AHEAD < last:
                        prefetch_row(args.block, ids[0, position + _AHEAD] + first_row, args.row_bytes, 1)
                    row = ids[0, position] + first_row
                    address = args.block + args.row_bytes * row
                    _add_row(total, address, block, half_block, row, kind, position == sample * count)
                feature = sample * (tables + 1) + table + 1
                for d in range(dimension):
                    if is_bfloat16:
                        half_joined[feature, d] = to_bfloat16(total[0, d])
                    else:
                        joined[feature, d] = total[0, d]

    return ParallelLoop(pooling, Pooling)
