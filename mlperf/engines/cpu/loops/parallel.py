"""Compiled loops on the threads that PyTorch's own products run on, with named arguments.

Two thread pools would compete for the cores, because the threads of each spin for a while after their work,
waiting for more. So the loops run on the OpenMP library that PyTorch has loaded, through the entry point that
compilers use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

import llvmlite.binding
import numpy as np
import torch
from numba import cfunc, from_dtype, types

from mlperf.engines.cpu.loops.intrinsics import FAST

_ENTRIES = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")

# The types of a loop's arguments.
Address = Annotated[int, ctypes.c_int64]
Integer = Annotated[int, ctypes.c_int64]
Real = Annotated[float, ctypes.c_double]


class Arguments(ctypes.Structure):
    """Base of the arguments of a loop. `record` is the type under which compiled code reads them."""

    record: Any


A = TypeVar("A", bound=Arguments)


def arguments(declared: type[A]) -> type[A]:
    """Make the annotations of a class of arguments (Address, Integer, Real) its fields, in Python and in loops."""
    hints = get_type_hints(declared, include_extras=True)
    del hints["record"]
    declared._fields_ = [(name, hint.__metadata__[0]) for name, hint in hints.items()]
    declared.record = from_dtype(np.dtype(declared))
    return declared


@cache
def openmp() -> ctypes.PyDLL | None:
    """Return the OpenMP library in this process, None if there is none with the entry points needed."""
    try:
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    except OSError:
        return None
    # PyTorch's own comes first if another package has loaded one too.
    for path in sorted(mapped, key=lambda path: "torch" not in path):
        if "omp" in Path(path).name.split(".")[0]:
            # PyDLL keeps the interpreter's lock: a loop takes less time than releasing and taking it.
            library = ctypes.PyDLL(path)
            if all(hasattr(library, entry) for entry in _ENTRIES):
                return library
    return None


def _address(entry: str) -> int:
    library = openmp()
    assert library is not None, "loops need an OpenMP library"
    return ctypes.cast(getattr(library, entry), ctypes.c_void_p).value or 0


class ParallelLoop(Generic[A]):
    """A compiled function that every thread runs on its part of the work.

    function: takes a pointer to its arguments, `args = carray(pointer, 1)[0]`, and divides the work by `share`.
    """

    def __init__(self, function: Callable[[Any], None], arguments: type[A]) -> None:
        for entry in _ENTRIES[1:]:
            llvmlite.binding.add_symbol(f"dlrm_{entry}", _address(entry))
        signature = types.void(types.CPointer(arguments.record))
        self._function = cfunc(signature, cache=True, fastmath=FAST)(function)  # kept: it owns the code
        self._address = self._function.address
        self._arguments = arguments

    def prepare(self, **fixed: int | float) -> PreparedLoop[A]:
        """Return the loop with arguments of its own, of which `fixed` stay the same in every run."""
        assert fixed.keys() <= {name for name, *_ in self._arguments._fields_}, "no such argument"
        assert self._address is not None
        return PreparedLoop(self._address, self._arguments(**fixed))


class PreparedLoop(Generic[A]):
    """A loop and its arguments: set what changes in `args`, then call `run`.

    Setting single fields costs a tenth of packing all arguments anew, and a step of a small model runs many loops.
    Tensors are passed by address: the loop must know their dtype and shape, and they must be kept alive. The
    number of threads is PyTorch's when the loop was prepared.
    """

    def __init__(self, function: int, args: A) -> None:
        run = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        self.args = args
        # byref, unlike addressof, keeps the arguments alive: `run` alone may be kept.
        self.run = partial(
            run(_address("GOMP_parallel")), function, ctypes.byref(args), torch.get_num_threads(), 0
        )
