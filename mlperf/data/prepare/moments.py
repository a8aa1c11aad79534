"""Mean and standard deviation of dense columns, the same however the rows are divided into blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import Rows

# [columns, 5]: number of values, then the sums of the values and of their squares, each as two float64.
Sums = npt.NDArray[np.float64]


class Moments:
    """Sums over the rows so far, with about 106 bits (TwoSum, Knuth 1969): the square of a float32 is exact.

    columns: columns of the rows, which hold the bits of float32 values; NaN is a missing value. sums: sums of an
    interrupted process.
    """

    def __init__(self, columns: Sequence[int], sums: Sequence[Sequence[float]] = ()) -> None:
        self._columns = np.array(columns, np.int64)
        self._sums: Sums = np.array(sums, np.float64) if len(sums) else np.zeros((len(columns), 5))

    def add(self, rows: Rows) -> None:
        """Add rows, int32 [N, columns], in the order of the text."""
        if len(self._columns):
            _add(np.ascontiguousarray(rows).view(np.float32), self._columns, self._sums)

    def state(self) -> list[list[float]]:
        """Return the sums, to be saved."""
        saved: list[list[float]] = self._sums.tolist()
        return saved

    def results(self) -> list[tuple[float, float]]:
        """Return the mean and the standard deviation of each column, rounded once.

        The standard deviation is that of the population. 1 stands for 0: the values are only shifted.
        """
        return [_result(*map(Fraction, sums)) for sums in self.state()]


def _result(
    count: Fraction, high: Fraction, low: Fraction, square_high: Fraction, square_low: Fraction
) -> tuple[float, float]:
    if not count:
        return 0.0, 1.0
    mean = (high + low) / count
    variance = (square_high + square_low) / count - mean * mean
    deviation = math.sqrt(variance) if variance > 0 else 0.0
    return float(mean), deviation or 1.0


@numba.njit(nogil=True, cache=True, inline="always")
def _two_sum(first: float, second: float) -> tuple[float, float]:
    """Return the rounded sum and its error, exactly."""
    total = first + second
    part = total - first
    return total, (first - (total - part)) + (second - part)


@numba.njit("(float32[:, ::1], int64[::1], float64[:, ::1])", nogil=True, cache=True)
def _add(values: npt.NDArray[np.float32], columns: npt.NDArray[np.int64], sums: Sums) -> None:
    for row in range(len(values)):
        for each in range(len(columns)):
            value = np.float64(values[row, columns[each]])
            if np.isnan(value):
                continue
            sums[each, 0] += 1.0
            sums[each, 1], error = _two_sum(sums[each, 1], value)
            sums[each, 2] += error
            sums[each, 3], error = _two_sum(sums[each, 3], value * value)
            sums[each, 4] += error
