"""Rows of numbers to Criteo text, the opposite of parse."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import COLUMNS, FIRST_ID

# A label, 13 integers of up to 11 characters, 26 ids of 8, and what separates them.
_LONGEST_ROW = 2 + 13 * 12 + 26 * 9


def render_rows(values: npt.NDArray[np.int64], empty: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return the text of `values` [rows, 40]: label, integers of 32 bits, ids from 0 to 2**32 - 1.

    A field is left empty where `empty` [rows, 40] says so. Ids are written with 8 hexadecimal digits.
    """
    text = np.empty(len(values) * _LONGEST_ROW, np.uint8)
    return text[: _render(values, empty, text)]


@numba.njit(nogil=True, cache=True)
def _render(values: npt.NDArray[np.int64], empty: npt.NDArray[np.bool_], text: npt.NDArray[np.uint8]) -> int:
    at = 0
    for row in range(len(values)):
        for column in range(COLUMNS):
            value = values[row, column]
            if empty[row, column]:
                pass
            elif column < FIRST_ID:
                if value < 0:
                    text[at] = 45
                    at += 1
                    value = -value
                size = 1
                power = 10
                while value >= power:
                    size += 1
                    power *= 10
                for place in range(size):
                    text[at + size - 1 - place] = 48 + value % 10
                    value //= 10
                at += size
            else:
                for place in range(8):
                    digit = value >> (28 - 4 * place) & 15
                    text[at + place] = digit + (48 if digit < 10 else 87)
                at += 8
            text[at] = 10 if column == COLUMNS - 1 else 9
            at += 1
    return at
