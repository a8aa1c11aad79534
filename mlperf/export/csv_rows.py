"""Rows of predictions as text, formatted by a compiled loop."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

_DIGITS = 9  # significant digits, as many as distinguish any two float32
_SMALLEST = 10 ** (_DIGITS - 1)
_LARGEST = 10**_DIGITS
_POWERS = np.array([float(f"1e{exponent}") for exponent in range(60)])
_MAX_BYTES = 19 + 1 + 2 + 1 + 15 + 1  # number, label and probability such as 1.23456789e-45, with separators
_ZERO, _POINT, _MINUS, _COMMA, _NEWLINE, _E = b"0.-,\ne"


def csv_rows(
    numbers: npt.NDArray[np.int64], labels: npt.NDArray[np.int8], probabilities: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Return one line of text for each row: "17,0,0.0301851724". All arguments are [N], probabilities in [0, 1].

    Probabilities have the digits of Python's format ".9g".
    """
    text = np.empty(_MAX_BYTES * len(numbers), np.uint8)
    contiguous = np.ascontiguousarray
    return text[: _format(contiguous(numbers), contiguous(labels), contiguous(probabilities), text)]


@numba.njit(nogil=True, cache=True)
def _put_whole(text: npt.NDArray[np.uint8], position: int, value: int) -> int:
    """Write a whole number; return the position after it."""
    if value < 0:
        text[position] = _MINUS
        position, value = position + 1, -value
    digits, rest = 1, value // 10
    while rest > 0:
        digits, rest = digits + 1, rest // 10
    for place in range(position + digits - 1, position - 1, -1):
        text[place] = _ZERO + value % 10
        value //= 10
    return position + digits


@numba.njit(nogil=True, cache=True)
def _put_probability(text: npt.NDArray[np.uint8], position: int, value: float) -> int:
    """Write a number from 0 to 1; return the position after it."""
    if value <= 0.0:
        text[position] = _ZERO
        return position + 1
    shift = _DIGITS - 1  # value * 10^shift has 9 digits before the point
    while value * _POWERS[shift] < _SMALLEST:
        shift += 1
    digits = int(np.rint(value * _POWERS[shift]))
    if digits < _SMALLEST:  # the product was rounded
        digits = _SMALLEST
    elif digits >= _LARGEST:  # 9 nines and more
        digits, shift = _SMALLEST, shift - 1
    count = _DIGITS
    while digits % 10 == 0:
        digits, count = digits // 10, count - 1
    exponent = _DIGITS - 1 - shift  # of the first digit
    if exponent == 0:
        text[position] = _ZERO + 1
        return position + 1
    if exponent >= -4:
        text[position], text[position + 1] = _ZERO, _POINT
        position += 2
        for _ in range(-exponent - 1):
            text[position] = _ZERO
            position += 1
        return _put_whole(text, position, digits)
    end = _put_whole(text, position + (count > 1), digits)
    if count > 1:
        text[position], text[position + 1] = text[position + 1], _POINT
    text[end], text[end + 1] = _E, _MINUS
    if exponent > -10:
        text[end + 2] = _ZERO
        return _put_whole(text, end + 3, -exponent)
    return _put_whole(text, end + 2, -exponent)


@numba.njit("int64(int64[::1], int8[::1], float32[::1], uint8[::1])", nogil=True, cache=True)
def _format(
    numbers: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int8],
    probabilities: npt.NDArray[np.float32],
    text: npt.NDArray[np.uint8],
) -> int:
    """Fill `text` with the lines; return its length."""
    position = 0
    for row in range(len(numbers)):
        position = _put_whole(text, position, numbers[row])
        text[position] = _COMMA
        position = _put_whole(text, position + 1, labels[row])
        text[position] = _COMMA
        position = _put_probability(text, position + 1, np.float64(probabilities[row]))
        text[position] = _NEWLINE
        position += 1
    return position
