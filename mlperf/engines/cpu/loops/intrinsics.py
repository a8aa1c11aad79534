"""Numba intrinsics: arrays at addresses, bfloat16, prefetching, and dividing work among threads.

bfloat16 values are handled as their bits, uint16, because NumPy has no such type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

# Reassociation is allowed; NaNs are preserved.
FAST = {"reassoc", "contract", "nsz"}

# Float32 values per cache line. Columns are divided among threads in whole cache lines.
LINE = 16


@register_jitable
def whole_lines(count: int) -> int:
    """Return `count` float32 values rounded up to whole cache lines."""
    return (count + LINE - 1) // LINE * LINE


def generated(generate: Callable[..., Any]) -> Any:
    """Decorator: `numba.extending.intrinsic` with a type."""
    return intrinsic(generate)


@generated
def _pointer(typing: Any, address: Any) -> Any:
    """Return an int64 address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@generated
def to_bfloat16(typing: Any, number: Any) -> Any:
    """Return a float32 as bfloat16 bits, rounded to nearest, ties to even; a NaN stays a NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        half = word(16)
        odd = builder.and_(builder.lshr(bits, half), word(1))
        rounded = builder.lshr(builder.add(builder.add(bits, word(0x7FFF)), odd), half)
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(is_nan, word(0x7FC0), rounded), ir.IntType(16))

    return types.uint16(types.float32), generate


@generated
def from_bfloat16(typing: Any, bits: Any) -> Any:
    """Return bfloat16 bits as a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), word(16)), ir.FloatType())

    return types.float32(types.uint16), generate


@generated
def prefetch(typing: Any, address: Any) -> Any:
    """Prefetch the cache line at an address; invalid addresses are ignored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        pointer = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        builder.call(function, [pointer, word(0), word(3), word(1)])  # to read, into every level, data
        return context.get_dummy_value()

    return types.void(types.int64), generate


@generated
def fetch_and_add(typing: Any, address: Any) -> Any:
    """Add 1 to the int64 at an address, atomically, and return the value before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        pointer = builder.inttoptr(arguments[0], word.as_pointer())
        return builder.atomic_rmw("add", pointer, word(1), "monotonic")

    return types.int64(types.int64), generate


def _array_of(dtype: type) -> Any:
    """Return a function for compiled code that returns the array [rows, columns] of `dtype` at an address."""

    @njit
    def array(address: Any, rows: Any, columns: Any) -> Any:
        return carray(_pointer(address), (rows, columns), dtype)

    return array


float32_array = _array_of(np.float32)
float64_array = _array_of(np.float64)
int64_array = _array_of(np.int64)
int32_array = _array_of(np.int32)
uint32_array = _array_of(np.uint32)
uint16_array = _array_of(np.uint16)
int8_array = _array_of(np.int8)
uint8_array = _array_of(np.uint8)
bfloat16_array = uint16_array  # of their bits


_thread_num: Any = types.ExternalFunction("dlrm_omp_get_thread_num", types.int32())
_num_threads: Any = types.ExternalFunction("dlrm_omp_get_num_threads", types.int32())


@njit
def thread() -> Any:
    """Return the number of this thread, from 0."""
    return np.int64(_thread_num())


@njit
def share(work: Any) -> Any:
    """Return start and stop of the range of `work` items assigned to this thread."""
    number, threads = np.int64(_thread_num()), np.int64(_num_threads())
    return work * number // threads, work * (number + 1) // threads
