"""Render rows of numbers as Criteo text, the inverse of parsing."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import CRITEO

_COLUMNS = CRITEO.columns  # constants of the compiled code
_FIRST_ID = CRITEO.first_id
_TAB, _NEWLINE, _MINUS, _ZERO = b"\t\n-0"
_A_MINUS_10 = ord("a") - 10
_ID_DIGITS = 8
# A label, dense features of up to 11 characters, ids, and a separator after each.
_MAX_ROW_BYTES = 2 + 12 * CRITEO.dense_features + (_ID_DIGITS + 1) * CRITEO.tables


def render_rows(values: npt.NDArray[np.int64], empty: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return the text of rows.

    values: int64 [rows, columns]: label, 32-bit dense features, ids from 0 to 2**32 - 1. Ids are written as 8
        hexadecimal digits.
    empty: bool [rows, columns], True where the field is empty.
    """
    text = np.empty(len(values) * _MAX_ROW_BYTES, np.uint8)
    return text[: _render(values, empty, text)]


@numba.njit(nogil=True, cache=True)
def _render(values: npt.NDArray[np.int64], empty: npt.NDArray[np.bool_], text: npt.NDArray[np.uint8]) -> int:
    """Write the rows to `text`; return the number of bytes."""
    position = 0
    for row in range(len(values)):
        for column in range(_COLUMNS):
            value = values[row, column]
            if empty[row, column]:
                pass
            elif column < _FIRST_ID:
                if value < 0:
                    text[position] = _MINUS
                    position += 1
                    value = -value
                digits = 1
                power = 10
                while value >= power:
                    digits += 1
                    power *= 10
                for digit in range(digits):
                    text[position + digits - 1 - digit] = _ZERO + value % 10
                    value //= 10
                position += digits
            else:
                for digit in range(_ID_DIGITS):
                    nibble = value >> (28 - 4 * digit) & 15
                    text[position + digit] = nibble + (_ZERO if nibble < 10 else _A_MINUS_10)
                position += _ID_DIGITS
            text[position] = _NEWLINE if column == _COLUMNS - 1 else _TAB
            position += 1
    return position
