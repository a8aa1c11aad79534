"""Rows of embedding tables in compiled loops: their types, reading and storing them.

D embedding dimension, R rows of all tables.
"""

from __future__ import annotations

from typing import Any

import torch
from numba import literally, njit

from mlperf.engines.cpu.loops.float16 import from_float16
from mlperf.engines.cpu.loops.intrinsics import LINE, from_bfloat16, prefetch

# Types of the stored values, compile-time constants of the loops.
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2

_KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}


def row_kind(dtype: torch.dtype) -> int:
    """Return the constant of a type of table."""
    return _KINDS[dtype]


def value_size(kind: int) -> int:
    """Return the size of a value in bytes."""
    return 4 if kind == FLOAT32 else 2


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
