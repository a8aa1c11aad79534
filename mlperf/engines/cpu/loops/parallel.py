"""Compiled loops with named arguments, run on PyTorch's OpenMP threads.

Two thread pools would compete for the cores, because idle threads spin. The loops therefore use the OpenMP runtime
that PyTorch has loaded, through the entry point that compilers use.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

import llvmlite.binding
import numpy as np
import torch
from numba import cfunc, from_dtype, types
from torch.profiler import record_function

from mlperf.engines.cpu.loops.intrinsics import FAST
from mlperf.util.compiled_sources import sources_checksum

# The loops take functions and constants from each other, and the constants of the stochastic rounding.
_SOURCES = ("mlperf.engines.cpu.loops", "mlperf.optim.rounding")
_ENTRIES = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")

# The types of a loop's arguments.
Address = Annotated[int, ctypes.c_int64]
Integer = Annotated[int, ctypes.c_int64]
Real = Annotated[float, ctypes.c_double]


class Arguments(ctypes.Structure):
    """Base class of the arguments of a loop. record: the numba type with which compiled code reads them."""

    record: Any


A = TypeVar("A", bound=Arguments)


def arguments(declared: type[A]) -> type[A]:
    """Class decorator: turn annotations (Address, Integer, Real) into ctypes fields and a numba record type."""
    hints = get_type_hints(declared, include_extras=True)
    del hints["record"]
    declared._fields_ = [(name, hint.__metadata__[0]) for name, hint in hints.items()]
    declared.record = from_dtype(np.dtype(declared))
    return declared


# Whether the loops that are being prepared appear in profiles.
_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)


@contextmanager
def shown_in_profiles(shown: bool) -> Iterator[None]:
    """Context in which loops are prepared that appear in profiles if `shown`; the others spend no time on this.

    PyTorch's profiler sees only what goes through PyTorch or is named.
    """
    token = _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.reset(token)


@cache
def openmp() -> ctypes.PyDLL | None:
    """Return the OpenMP runtime loaded in this process, None if none has the required entry points."""
    try:
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    except OSError:
        return None
    # Prefer PyTorch's runtime if other packages have loaded one too.
    for path in sorted(mapped, key=lambda path: "torch" not in path):
        if "omp" in Path(path).name.split(".")[0]:
            # PyDLL keeps the GIL: releasing and acquiring it would take longer than a short loop.
            library = ctypes.PyDLL(path)
            if all(hasattr(library, entry) for entry in _ENTRIES):
                return library
    return None


def _address(entry: str) -> int:
    library = openmp()
    assert library is not None, "the loops need an OpenMP runtime"
    return ctypes.cast(getattr(library, entry), ctypes.c_void_p).value or 0


class ParallelLoop(Generic[A]):
    """A compiled function that every thread runs on its part of the work.

    function: receives a pointer to its arguments (`args = carray(pointer, 1)[0]`) and divides the work by `share`.
    """

    def __init__(self, function: Callable[[Any], None], arguments: type[A]) -> None:
        for entry in _ENTRIES[1:]:
            llvmlite.binding.add_symbol(f"dlrm_{entry}", _address(entry))
        self._name = f"loop {function.__module__.rpartition('.')[2]}.{function.__name__.lstrip('_')}"
        function.__qualname__ = f"{function.__qualname__.partition('-')[0]}-{sources_checksum(_SOURCES)}"
        signature = types.void(types.CPointer(arguments.record))
        self._function = cfunc(signature, cache=True, fastmath=FAST)(function)  # keeps the code alive
        self._address = self._function.address
        self._arguments = arguments

    def prepare(self, **fixed: int | float) -> PreparedLoop[A]:
        """Return a PreparedLoop with its own arguments; `fixed` sets those that never change."""
        assert fixed.keys() <= {name for name, *_ in self._arguments._fields_}, "no such argument"
        assert self._address is not None
        return PreparedLoop(self._address, self._arguments(**fixed), self._name)


class PreparedLoop(Generic[A]):
    """A loop and its arguments: set what changes in `args`, then call `run`.

    Setting one field is ten times cheaper than packing all arguments, and a step of a small model runs many loops.
    Tensors are passed by address: the loop must know their dtype and shape, and the caller must keep them alive.
    The number of threads is read from PyTorch when the loop is prepared. name: of the loop in profiles.
    `run_alone` does all work in the calling thread: for little work, starting the others would take longer.
    """

    def __init__(self, function: int, args: A, name: str) -> None:
        run = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        self.args = args
        # byref, unlike addressof, keeps the arguments alive: `run` alone may be kept.
        self.run: Callable[[], None] = partial(
            run(_address("GOMP_parallel")), function, ctypes.byref(args), torch.get_num_threads(), 0
        )
        alone = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
        self.run_alone: Callable[[], None] = partial(alone(function), ctypes.byref(args))
        if _SHOWN.get():
            self.run, self.run_alone = (record_function(name)(run) for run in (self.run, self.run_alone))
