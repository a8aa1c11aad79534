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
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_ENTRIES = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")

# What a loop is told: addresses, sizes and numbers, at most this many.
_MOST_ARGUMENTS = 20

# Sums may be taken in any order; what is not a number stays so.
FAST = {"reassoc", "contract", "nsz"}


@cache
def openmp() -> ctypes.PyDLL | None:
    """Return the OpenMP library in this process, None if there is none with the entries needed."""
    torch.set_num_threads(torch.get_num_threads())  # loads it
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


_thread_num = types.ExternalFunction("dlrm_omp_get_thread_num", types.int32())
_num_threads = types.ExternalFunction("dlrm_omp_get_num_threads", types.int32())


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def _bits_of(typing: Any, number: Any) -> Any:
    """A float32 as its bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@intrinsic
def _float_of(typing: Any, bits: Any) -> Any:
    """A float32 from its bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@njit
def to_bfloat16(number: Any) -> Any:
    """Return a float32 as bfloat16 bits, rounded to nearest, ties to even; a NaN stays one."""
    bits = _bits_of(np.float32(number))
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.uint16(0x7FC0) if is_nan else np.uint16(rounded)


@njit
def from_bfloat16(half: Any) -> Any:
    """Return the float32 that bfloat16 bits stand for."""
    return _float_of(np.uint32(half) << np.uint32(16))


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
