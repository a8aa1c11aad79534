"""Adagrad's rule for one value, in compiled loops."""

from __future__ import annotations

import math
from typing import Any

from numba import njit


# fastmath would be inherited from the caller; without it, the sums are those of PyTorch to the bit.
# error_model: a check for a division by 0 would keep loops from being vectorized.
@njit(fastmath=False, error_model="numpy")
def adagrad_direction(gradient: Any, sums: Any, position: Any, epsilon: Any) -> Any:
    """Add the square of the gradient to the sum at `position` and return the gradient divided by its root."""
    squares = gradient * gradient + sums[position]
    sums[position] = squares
    return gradient / (math.sqrt(squares) + epsilon)
