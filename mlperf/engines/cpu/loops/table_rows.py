"""Rows of embedding tables in compiled loops: their types, reading and storing them.

Quantized rows have the layout of `mlperf.models.layers.embedding.quantized`. D embedding dimension, R rows of all
tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import literally, njit, types

from mlperf.engines.cpu.loops.float16 import from_float16
from mlperf.engines.cpu.loops.intrinsics import (
    FAST,
    LINE,
    float32_array,
    from_bfloat16,
    generated,
    prefetch,
    uint8_array,
)
from mlperf.models.layers.embedding.quantized import HEADER_BYTES, row_bytes

# Types of the stored values, compile-time constants of the loops. EIGHT_BITS and FOUR_BITS: of quantized rows.
FLOAT32, BFLOAT16, FLOAT16, EIGHT_BITS, FOUR_BITS = 0, 1, 2, 3, 4

_KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
_QUANTIZED = {8: EIGHT_BITS, 4: FOUR_BITS}


def row_kind(dtype: torch.dtype) -> int:
    """Return the constant of a type of table."""
    return _KINDS[dtype]


def quantized_kind(bits: int) -> int:
    """Return the constant of quantized rows with `bits` bits per value."""
    return _QUANTIZED[bits]


def value_size(kind: int) -> int:
    """Return the size of a value in bytes. kind: not of quantized rows."""
    return 4 if kind == FLOAT32 else 2


def stored_bytes(kind: int, dimension: int) -> int:
    """Return the size of a row in bytes."""
    for bits, quantized in _QUANTIZED.items():
        if kind == quantized:
            return row_bytes(dimension, bits)
    return value_size(kind) * dimension


@njit
def load(block: Any, half_block: Any, row: Any, column: Any, kind: Any) -> Any:
    """Return a value of a table as float32. block: float32 [R, D]; half_block: the same memory as uint16."""
    literally(kind)
    if kind == BFLOAT16:
        return from_bfloat16(half_block[row, column])
    if kind == FLOAT16:
        return from_float16(half_block[row, column])
    return block[row, column]


@njit
def prefetch_row(address: Any, row: Any, values: Any, size: Any) -> None:
    """Prefetch a row of an array at `address`: `values` values of `size` bytes each."""
    literally(size)
    for column in range(0, values, 4 * LINE // size):
        prefetch(address + size * (row * values + column))


def _half(generate_bits: Callable[[Any, Any], Any]) -> Any:
    """Return a function for compiled code: a half of a byte as an int32, of which numba would make an int64."""

    def half(typing: Any, byte: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return generate_bits(builder, builder.zext(arguments[0], ir.IntType(32)))

        return types.int32(types.uint8), generate

    return generated(half)


_low_half = _half(lambda builder, bits: builder.and_(bits, bits.type(15)))
_high_half = _half(lambda builder, bits: builder.lshr(bits, bits.type(4)))


@njit(fastmath=FAST)
def _read_codes(codes: Any, values: Any, smallest: Any, step: Any, part: Any, is_added: Any) -> None:
    """Write the values of `codes`, uint8 [D], or add them. part: 0 for whole bytes, 1 and 2 for their halves."""
    literally(part)
    literally(is_added)
    for d in range(len(values)):
        if part == 0:
            value = smallest + step * np.float32(codes[d])
        elif part == 1:
            value = smallest + step * np.float32(_low_half(codes[d]))
        else:
            value = smallest + step * np.float32(_high_half(codes[d]))
        values[d] = values[d] + value if is_added else value


@njit(fastmath=FAST)
def read_quantized(address: Any, values: Any, kind: Any, is_added: Any) -> None:
    """Write the values of the quantized row at `address` to `values`, float32 [D], or add them."""
    literally(kind)
    literally(is_added)
    header = float32_array(address, 1, HEADER_BYTES // 4)
    smallest, step = header[0, 0], header[0, 1]
    if kind == EIGHT_BITS:
        codes = uint8_array(address + HEADER_BYTES, 1, len(values))
        _read_codes(codes[0], values, smallest, step, 0, is_added)
    else:
        half = (len(values) + 1) >> 1
        codes = uint8_array(address + HEADER_BYTES, 1, half)
        _read_codes(codes[0], values[:half], smallest, step, 1, is_added)
        _read_codes(codes[0], values[half:], smallest, step, 2, is_added)
