"""Adagrad's rule, shared by the kernels that update weights."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def adagrad_direction(gradient, squares, epsilon):
    """Return what Adagrad subtracts with rate 1. squares: sums of squares, this step's included; broadcast."""
    return gradient / (tl.sqrt(squares) + epsilon)
