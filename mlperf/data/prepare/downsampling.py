"""Negative downsampling: each row with label 0 is dropped with a given probability.

Whether a row is dropped depends on a hash of the seed and of its position in the raw text, and thus neither on the
number of cores nor on where reading resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.prepare.splitmix64 import splitmix64
from mlperf.util.compiled_sources import compiled_with

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NegativeDownsampler:
    """rate: probability in [0, 1) with which a row of label 0 is dropped."""

    seed: int
    rate: float

    def kept(self, labels: npt.NDArray[np.int32], file: int, first_row: int) -> BoolArray:
        """Return which rows are kept, bool [N].

        labels: int32 [N], of consecutive rows of a text file. file, first_row: number of the text file and of the
            first of the rows in it, both from 0.
        """
        key = (self.seed << 8 | file) & 0xFFFFFFFFFFFFFFFF
        kept: BoolArray = _kept(labels, np.uint64(key), first_row, np.uint64(self.rate * 2.0**64))
        return kept


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.prepare.splitmix64")
def _kept(labels: npt.NDArray[np.int32], key: np.uint64, first_row: int, dropped_below: np.uint64) -> BoolArray:
    start = splitmix64(key, 1)
    kept = np.empty(len(labels), np.bool_)
    for row in range(len(labels)):
        random_bits = splitmix64(start, first_row + row)
        kept[row] = labels[row] != 0 or random_bits >= dropped_below
    return kept
