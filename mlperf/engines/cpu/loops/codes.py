"""Rows of float32 values as codes of 8 bits, each row with a scale and an offset of its own.

value = scale * code + offset, with codes from -128 to 127 for the smallest and the largest value of the row. The
error of a value is at most half a scale. A row with a value that is not finite has the scale NaN.

W values in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from mlperf.engines.cpu.loops.intrinsics import FAST, generated

_INT8, _INT32, _FLOAT32 = ir.IntType(8), ir.IntType(32), ir.FloatType()

_MAX_FLOAT32 = np.finfo(np.float32).max

# Codes per row are padded to a multiple of this, for which matrix products of 8 bits are faster.
CODE_GROUP = 16


def padded_codes(width: int) -> int:
    """Return `width` codes rounded up to whole groups, at least one."""
    return max(1, (width + CODE_GROUP - 1) // CODE_GROUP) * CODE_GROUP


@generated
def _ordered(typing: Any, value: Any) -> Any:
    """Return a float32 as an int32 in the same order. Extremes of int32 are found in vector instructions.

    NaNs are above infinity or below minus infinity, depending on their sign.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _flipped(builder, builder.bitcast(arguments[0], _INT32))

    return types.int32(types.float32), generate


@generated
def _from_ordered(typing: Any, value: Any) -> Any:
    """Return the float32 of which `_ordered` made `value`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(_flipped(builder, arguments[0]), _FLOAT32)

    return types.float32(types.int32), generate


def _flipped(builder: Any, bits: Any) -> Any:
    """Flip all bits but the sign of negative numbers: their magnitude then increases downwards."""
    is_negative = builder.ashr(bits, _INT32(31))
    return builder.xor(bits, builder.and_(is_negative, _INT32(0x7FFFFFFF)))


def _extreme(comparison: str) -> Any:
    def extreme(typing: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            left, right = arguments
            return builder.select(builder.icmp_signed(comparison, left, right), left, right)

        return types.int32(types.int32, types.int32), generate

    return generated(extreme)


_smaller, _larger = _extreme("<"), _extreme(">")


@generated
def _code(typing: Any, steps: Any) -> Any:
    """Return the code of a value that lies `steps` scales, 0 to 255, above the smallest one of its row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rounded = builder.fptosi(builder.fadd(arguments[0], ir.Constant(_FLOAT32, 0.5)), _INT32)
        return builder.trunc(builder.sub(rounded, _INT32(128)), _INT8)

    return types.int8(types.float32), generate


@njit(fastmath=FAST)
def write_codes(values: Any, codes: Any, width: Any) -> Any:
    """Write the codes of `values` [W] to `codes`, whose other entries become 0, and return scale and offset."""
    if width == 0:
        codes[:] = 0
        return np.float32(0), np.float32(0)
    smallest, largest = _ordered(values[0]), _ordered(values[0])
    for column in range(width):
        value = _ordered(values[column])
        smallest, largest = _smaller(smallest, value), _larger(largest, value)
    low, high = _from_ordered(smallest), _from_ordered(largest)
    span = high - low
    if not span <= _MAX_FLOAT32:
        return np.float32(np.nan), np.float32(np.nan)
    per_scale = np.float32(255) / span if span > 0 else np.float32(0)
    for column in range(width):
        codes[column] = _code((values[column] - low) * per_scale)
    for column in range(width, len(codes)):
        codes[column] = 0
    scale = span / np.float32(255)
    return scale, low + np.float32(128) * scale
