"""splitmix64, a random number for each position of a sequence (Steele, Lea and Flood, OOPSLA 2014)."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, inline="always")
def splitmix64(key: np.uint64, position: int) -> np.uint64:
    """Return 64 random bits for a position, from 0, of the sequence that starts at `key`."""
    value = key + np.uint64(position) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.uint64(value ^ (value >> np.uint64(31)))
