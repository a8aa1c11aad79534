"""Rows with the values of the reference: logarithms, and ids that were float32 on the way.

The reference shifts the integers of a day so that its smallest becomes 2, in int32, and takes the logarithm. Then
it shuffles the training rows as one float32 array, which rounds ids above 2^24.
"""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np

from mlperf.data.prepare.parse import MAX_INT32
from mlperf.data.prepare.reference.logarithm import float_bits, natural_logarithm
from mlperf.data.schema import CRITEO, Rows
from mlperf.util.compiled_sources import compiled_with
from mlperf.util.errors import RunError

_FIRST_ID = CRITEO.first_id  # constants of the compiled code
_COLUMNS = CRITEO.columns
_NO_INTEGER = -1 << 40
_SMALLEST_LOGARITHM_OF = 2
MAX_FLOAT_ID = MAX_INT32 - 64  # larger ids are rounded up to 2^31 and do not fit in int32


def convert(rows: Rows, smallest: int, path: Path) -> None:
    """Replace the integers of rows by the bits of the float32 features, in place.

    rows: int32 [N, columns], of one day. smallest: the smallest integer of the day. path: the text of the day, for
    the RunError if an integer is so large that the reference's int32 overflows.
    """
    if len(rows) and (overflow := int(_convert(rows, smallest))) != _NO_INTEGER:
        raise RunError(
            f"{path}: contains the integers {smallest} and {overflow}; with --reference-files they must be at "
            f"most {MAX_INT32 - 2} apart, because the reference computes with 32 bits"
        )


@numba.njit("int64(int32[:, ::1], int64)", nogil=True, cache=True)
@compiled_with("mlperf.data.prepare.reference.logarithm", "mlperf.data.prepare.parse")
def _convert(rows: Rows, smallest: int) -> int:
    """Return the first integer that is too large, otherwise _NO_INTEGER."""
    for row in range(len(rows)):
        for column in range(1, _FIRST_ID):
            shifted = np.int64(rows[row, column]) - smallest + _SMALLEST_LOGARITHM_OF
            if shifted > MAX_INT32:
                return rows[row, column]
            rows[row, column] = np.int32(float_bits(natural_logarithm(np.float32(shifted))))
    return _NO_INTEGER


@numba.njit("(int32[:, ::1],)", nogil=True, cache=True)
def round_ids(rows: Rows) -> None:
    """Round the ids, which must be at most MAX_FLOAT_ID, to float32, in place."""
    for row in range(len(rows)):
        for column in range(_FIRST_ID, _COLUMNS):
            rows[row, column] = np.int32(np.float32(rows[row, column]))
