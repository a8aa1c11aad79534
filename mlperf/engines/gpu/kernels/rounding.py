"""Stochastic rounding on the GPU: the same bits as `mlperf.optim.rounding`, which defines them.

Philox is a function of Triton.

L rows, DP columns of a tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mlperf.optim.rounding import VALUES_PER_CALL

_VALUES_PER_CALL = tl.constexpr(VALUES_PER_CALL)


@triton.jit
def random_bits(row, counter, DP: tl.constexpr):
    """Return 16 random bits for each value of a tile, int32 [L, DP].

    row: int32 [L], numbered over all tables. counter: int64 [2], the seed and the number of steps before this one.
    """
    group = tl.arange(0, DP // _VALUES_PER_CALL)
    zeros = tl.zeros((row.shape[0], DP // _VALUES_PER_CALL), tl.int32)
    step = tl.load(counter + 1).to(tl.int32)
    # Rows are int32: the high word of their number is 0.
    first, second, third, fourth = tl.philox(
        tl.load(counter), zeros + row[:, None], zeros, zeros + group[None, :], zeros + step
    )
    # join adds a dimension behind the others: the words of a call become adjacent, then the halves of each word.
    words = tl.join(tl.join(first, third), tl.join(second, fourth))  # word 2x + y at [..., x, y]
    halves = tl.join(words & 0xFFFF, words >> 16)
    return halves.reshape(row.shape[0], DP).to(tl.int32)


@triton.jit
def round_stochastically(values, bits, DTYPE: tl.constexpr):
    """Return float32 `values` in DTYPE, bfloat16 or float16. bits: int32, 16 random bits for each value."""
    pattern = values.to(tl.int32, bitcast=True)
    magnitude = pattern & 0x7FFFFFFF
    if tl.bfloat16 == DTYPE:
        rounded = (magnitude + bits) >> 16
    else:
        normal = tl.minimum(((magnitude + (bits >> 3)) >> 13) - ((127 - 15) << 10), 0x7C00)  # 0x7C00: infinity
        scaled = tl.minimum(tl.abs(values) * 16777216.0, 1024.0)  # multiples of 2^-24, below 2^10
        whole = scaled.to(tl.int32)
        subnormal = whole + ((((scaled - whole.to(tl.float32)) * 65536.0).to(tl.int32) + bits) >> 16)
        rounded = tl.where(magnitude < ((127 - 14) << 23), subnormal, normal)
    halves = (((pattern >> 16) & 0x8000) | rounded).to(tl.int16).to(DTYPE, bitcast=True)
    is_finite = magnitude < 0x7F800000
    return tl.where(is_finite, halves, values.to(DTYPE))
