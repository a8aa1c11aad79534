"""Availability of Triton, and tile sizes of its kernels."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import torch
import triton
import triton.language as tl


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def missing_requirement() -> str | None:
    """Return why kernels cannot be launched here, None if they can. Triton needs a C compiler for its launcher."""
    if _interpreted():
        return None
    try:
        triton.runtime.driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        return str(error).partition("\n")[0]
    return None


def product_type(dtype: torch.dtype) -> Any:
    """Return the Triton type for products of `dtype`; the interpreter has no bfloat16 products: float32."""
    return tl.bfloat16 if dtype == torch.bfloat16 and not _interpreted() else tl.float32


def tile_size(count: int) -> int:
    """Return the tile size for `count` values: a power of two, at least 16 as required by `tl.dot`."""
    return max(16, triton.next_power_of_2(count))


def tiles_per_program(samples: int) -> int:
    """Return the number of tiles that a program instance sums before its atomic addition.

    More tiles need fewer atomics; fewer tiles let more program instances run at the same time. 8 tiles from 65,536
    samples on.
    """
    return max(1, min(8, samples // 8192))
