"""SGD update of float32 embedding rows on the CPU. `row_update` has all other updates.

B samples, T tables, D embedding dimension, R rows of all tables.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from mlperf.engines.cpu.loops.intrinsics import LINE, float32_array, int64_array, share
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, Real, arguments


@arguments
class SgdRowUpdate(Arguments):
    """Arguments of the update."""

    ids: Address  # int64 [T, B]
    first_row: Address  # int64 [T], first row of each table in the block
    block: Address  # float32 [R, D], the rows of all tables, updated
    row_gradients: Address  # float32 [B, T, D]
    tables: Integer  # T
    samples: Integer  # B
    rows: Integer  # R
    rate: Real


@cache
def make_sgd_row_update(dimension: int) -> ParallelLoop[SgdRowUpdate]:
    """Return the loop that subtracts rate times the gradients from the rows of a batch.

    Each thread updates its own tables and columns. No atomics are needed, and the summation order does not depend
    on the number of threads.
    """
    lines = (dimension + LINE - 1) // LINE

    def update(pointer: Any) -> None:
        args = carray(pointer, 1)[0]
        tables, samples, rate = args.tables, args.samples, np.float32(args.rate)
        ids, first_row = int64_array(args.ids, tables, samples), int64_array(args.first_row, tables, 1)
        block = float32_array(args.block, args.rows, dimension)
        gradients = float32_array(args.row_gradients, samples * tables, dimension)
        start, stop = share(tables * lines)
        while start < stop:
            table = start // lines
            last = min(stop, (table + 1) * lines)
            left, right = (start - table * lines) * LINE, min((last - table * lines) * LINE, dimension)
            for sample in range(samples):
                row = ids[table, sample] + first_row[table, 0]
                if right - left == dimension:  # compile-time bounds, unlike those of a split table
                    for d in range(dimension):
                        block[row, d] -= rate * gradients[sample * tables + table, d]
                else:
                    for d in range(left, right):
                        block[row, d] -= rate * gradients[sample * tables + table, d]
            start = last

    return ParallelLoop(update, SgdRowUpdate)
