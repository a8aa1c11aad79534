"""Names of cached code that change with the sources of the functions that numba compiles into it.

numba compiles a cached function again if its own file changes, but not if another one does from which the function
takes functions or constants. After an update of the sources, it would run old code.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def compiled_with(*modules: str) -> Callable[[F], F]:
    """Decorate a function, below `numba.njit(cache=True)`, that takes functions or constants from other files.

    modules: names of all of them, also of those from which these functions take others; a package stands for all
    of its files.
    """

    def name(function: F) -> F:
        function.__qualname__ = f"{function.__qualname__}-{sources_checksum(modules)}"
        return function

    return name


@cache
def sources_checksum(modules: Iterable[str]) -> str:
    """Return a checksum of the files of modules and packages."""
    files = [file for module in modules for file in _files(module)]
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"


def _files(module: str) -> list[Path]:
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    file = Path(spec.origin)
    return [file] if spec.submodule_search_locations is None else sorted(file.parent.glob("*.py"))
