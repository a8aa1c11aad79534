"""What every Triton kernel of this folder needs: whether kernels can run here, and the sizes of tiles."""

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
    """Return why kernels cannot be launched here, or None if they can. Triton compiles their launcher, in C."""
    if _interpreted():
        return None
    try:
        triton.runtime.driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        return str(error).partition("\n")[0]
    return None


def product_type(dtype: torch.dtype) -> Any:
    """Return Triton's type for products of `dtype`. Its interpreter cannot multiply bfloat16 and uses float32."""
    return tl.bfloat16 if dtype == torch.bfloat16 and not _interpreted() else tl.float32


def tile_size(count: int) -> int:
    """Return the size of a tile for `count` values: a power of two, and at least the 16 that `tl.dot` needs."""
    return max(16, triton.next_power_of_2(count))


def tiles_per_program(samples: int) -> int:
    """Return how many tiles a program sums over that adds its sums atomically to those of the others.

    More tiles mean fewer atomics, fewer tiles mean more programs that run at the same time: 8 tiles from 65,536
    samples on.
    """
    return max(1, min(8, samples // 8192))
