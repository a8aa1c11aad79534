"""Adagrad's rule for one value, in compiled loops."""

from __future__ import annotations

import math
from typing import Any

from numba import njit


# error_model: a division by 0 is not checked, which would keep loops from being vectorized.
@njit(error_model="numpy")
def adagrad_direction(gradient: Any, sums: Any, position: Any, epsilon: Any) -> Any:
    """Add the square of the gradient to the sum at `position` and return the gradient divided by its root."""
    squares = gradient * gradient + sums[position]
    sums[position] = squares
    return gradient / (math.sqrt(squares) + epsilon)
