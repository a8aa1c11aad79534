"""Launching the Triton kernels of `gpu_interaction.py` and `gpu_layers.py`."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import torch
import triton
import triton.language as tl


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def obstacle() -> str | None:
    """Return why kernels cannot be launched here, None if they can: Triton compiles their launcher, in C."""
    if _interpreted():
        return None
    try:
        triton.runtime.driver.active.get_current_target()
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        return str(error).partition("\n")[0]
    return None


def dot_type(dtype: torch.dtype) -> Any:
    """Return Triton's type for products of `dtype`; its interpreter cannot multiply bfloat16 and takes float32."""
    return tl.bfloat16 if dtype == torch.bfloat16 and not _interpreted() else tl.float32


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Run `kernel` in `grid` programs of `warps` warps."""
    kernel[grid](*arguments, num_warps=warps, **constants)
