"""Compiled code that is cached is not used after one of its sources has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
from loops import total
print(total(3))
"""
_LOOPS = """
import numba
from helper import STEP, step
from mlperf.util.compiled_sources import compiled_with

@numba.njit("int64(int64)", cache=True)
@compiled_with("helper", "shared")
def total(count):
    return step(count) + STEP
"""
_HELPER = """
import numba
from shared import factor

STEP = 1

@numba.njit(inline="always")
def step(count):
    return count * factor()
"""
_SHARED = """
import numba

@numba.njit(inline="always")
def factor():
    return {}
"""


@pytest.mark.parametrize("package", [False, True])
def test_a_change_of_another_file_compiles_the_function_again(tmp_path: Path, package: bool) -> None:
    (tmp_path / "loops.py").write_text(_LOOPS)
    (tmp_path / "helper.py").write_text(_HELPER)
    shared = tmp_path / ("shared/__init__.py" if package else "shared.py")
    shared.parent.mkdir(exist_ok=True)

    def result() -> int:
        command = [sys.executable, "-B", "-c", _PROGRAM]
        return int(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)

    shared.write_text(_SHARED.format(10))
    assert result() == result() == 31
    shared.write_text(_SHARED.format(100))
    assert result() == 301
