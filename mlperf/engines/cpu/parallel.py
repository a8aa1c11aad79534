"""Compiled loops on the threads that PyTorch's own products run on.

Two pools of threads would take the cores from each other: both spin for a while after their work, waiting for
more. So these loops are handed to the OpenMP library that PyTorch has loaded, by the entry that compilers use.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_ENTRIES = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")

# What a loop is told: addresses, sizes and numbers, at most this many.
_MOST_ARGUMENTS = 20

# Float32 values in a cache line: what is shared out by columns goes to threads in whole lines.
LINE = 16

# Sums may be taken in any order; what is not a number stays so.
FAST = {"reassoc", "contract", "nsz"}


@cache
def openmp() -> ctypes.PyDLL | None:
    """Return the OpenMP library in this process, None if there is none with the entries needed."""
    try:
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    except OSError:
        return None
    # PyTorch's own comes first, where another package has brought one too.
    for path in sorted(mapped, key=lambda path: "torch" not in path):
        if "omp" in Path(path).name.split(".")[0]:
            # Keeps the interpreter's lock: a loop takes less time than handing it over.
            library = ctypes.PyDLL(path)
            if all(hasattr(library, entry) for entry in _ENTRIES):
                return library
    return None


def _address(entry: str) -> int:
    library = openmp()
    assert library is not None, "asked for loops where there is no OpenMP library"
    return ctypes.cast(getattr(library, entry), ctypes.c_void_p).value or 0


class ParallelLoop:
    """A compiled function that every thread runs, with its part of the work from `share`."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        for entry in _ENTRIES[1:]:
            llvmlite.binding.add_symbol(f"dlrm_{entry}", _address(entry))
        self._function = cfunc("void(voidptr)", cache=True, fastmath=FAST)(function)
        self._where = ctypes.c_void_p(self._function.address)
        self._run = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(
            _address("GOMP_parallel")
        )

    def __call__(self, *arguments: torch.Tensor | int | float) -> None:
        """Run the loop: of a tensor it gets the address, and whoever wrote it knows type and shape."""
        words = [
            argument.data_ptr()
            if isinstance(argument, torch.Tensor)
            else struct.unpack("q", struct.pack("d", argument))[0]
            if isinstance(argument, float)
            else argument
            for argument in arguments
        ]
        told = (ctypes.c_int64 * _MOST_ARGUMENTS)(*words)
        self._run(self._where, ctypes.addressof(told), torch.get_num_threads(), 0)


_thread_num: Any = types.ExternalFunction("dlrm_omp_get_thread_num", types.int32())
_num_threads: Any = types.ExternalFunction("dlrm_omp_get_num_threads", types.int32())


def _instruction(generate: Callable[..., Any]) -> Any:
    """Make a function of compiled code from one that generates its instructions."""
    return intrinsic(generate)


@_instruction
def _pointer(typing: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@_instruction
def to_bfloat16(typing: Any, number: Any) -> Any:
    """A float32 as bfloat16 bits, rounded to nearest, ties to even; a NaN stays one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        half = word(16)
        odd = builder.and_(builder.lshr(bits, half), word(1))
        rounded = builder.lshr(builder.add(builder.add(bits, word(0x7FFF)), odd), half)
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(is_nan, word(0x7FC0), rounded), ir.IntType(16))

    return types.uint16(types.float32), generate


@_instruction
def from_bfloat16(typing: Any, bits: Any) -> Any:
    """The float32 that bfloat16 bits stand for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), word(16)), ir.FloatType())

    return types.float32(types.uint16), generate


@_instruction
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, without waiting for it; any address is allowed."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        pointer = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        builder.call(function, [pointer, word(0), word(3), word(1)])  # to read, into every level, data
        return context.get_dummy_value()

    return types.void(types.int64), generate


@njit
def whole_numbers(arguments: Any) -> Any:
    """Return what a loop was told, as addresses and sizes."""
    return carray(arguments, _MOST_ARGUMENTS, np.int64)


@njit
def reals(arguments: Any) -> Any:
    """Return what a loop was told, as numbers."""
    return carray(arguments, _MOST_ARGUMENTS, np.float64)


@njit
def floats(address: Any, rows: Any, columns: Any) -> Any:
    """Return the float32 [rows, columns] at an address."""
    return carray(_pointer(address), (rows, columns), np.float32)


@njit
def doubles(address: Any, rows: Any, columns: Any) -> Any:
    """Return the float64 [rows, columns] at an address."""
    return carray(_pointer(address), (rows, columns), np.float64)


@njit
def longs(address: Any, rows: Any, columns: Any) -> Any:
    """Return the int64 [rows, columns] at an address."""
    return carray(_pointer(address), (rows, columns), np.int64)


@njit
def halves(address: Any, rows: Any, columns: Any) -> Any:
    """Return the uint16 [rows, columns] at an address: bfloat16, which NumPy has no type for."""
    return carray(_pointer(address), (rows, columns), np.uint16)


@njit
def thread() -> Any:
    """Return the number of this thread, from 0."""
    return np.int64(_thread_num())


@njit
def share(work: Any) -> Any:
    """Return first and last (excluded) of the pieces of `work` that are this thread's."""
    number, threads = np.int64(_thread_num()), np.int64(_num_threads())
    return work * number // threads, work * (number + 1) // threads
