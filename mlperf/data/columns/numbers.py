"""Numbers in text: whole numbers, hexadecimal ids and decimals, in compiled code.

Each function gets the addresses of the first byte and of the byte after the last, at which eight more bytes can be
read. It returns OK or the reason why the bytes are not such a number, and the value.
"""

from __future__ import annotations

import numba
import numpy as np

from mlperf.data.text.eight_bytes import eight_decimal_digits, eight_digits, padded_digits
from mlperf.data.text.faults import (
    LONG_ID,
    LONG_INTEGER,
    NOT_DECIMAL,
    NOT_HEX,
    NOT_INTEGER,
    OK,
    OUT_OF_RANGE,
)
from mlperf.data.text.memory import byte_at, word_at
from mlperf.util.compiled_sources import compiled_with

UNSURE = -1  # instead of a reason: the value must be computed with more digits

_PLUS, _MINUS, _POINT, _ZERO, _NINE, _EXPONENT = b"+-.09e"
_LARGEST_HEAD, _LARGEST_DIGIT = (np.uint64(part) for part in divmod(2**64 - 1, 10))

_SIGNIFICANT_DIGITS = 19  # that a uint64 holds
_EXACT_INTEGERS, _EXACT_POWER = np.uint64(1 << 53), 22  # of float64
_SMALLEST_POWER, _LARGEST_POWER = -64, 39  # others times 19 digits are 0 or infinite in float32
_POWERS = np.array([float(f"1e{power}") for power in range(_SMALLEST_POWER, _LARGEST_POWER + 1)])
_MAX_EXPONENT = 10**9  # larger ones are read as this one; a line has far fewer digits
# Rounded are the digits, the power and the product, each by at most 2^-53, and digits are left out, at most 2^-59.
_BELOW, _ABOVE = 1 - 2.0**-50, 1 + 2.0**-50


@numba.njit(nogil=True, cache=True, inline="always")
def _digits(begin: int, end: int) -> tuple[int, np.uint64]:
    """Parse decimal digits without a sign; the fault is NOT_INTEGER, or LONG_INTEGER if they exceed 64 bits."""
    count = end - begin
    if 0 < count <= 8:
        good, value = eight_decimal_digits(padded_digits(begin, count))
        reason = OK if good else NOT_INTEGER
    else:
        reason, value = _many_digits(begin, end)
    return reason, value


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _many_digits(begin: int, end: int) -> tuple[int, np.uint64]:
    """Parse more than 8 digits, or none."""
    value = np.uint64(0)
    if begin == end:
        return NOT_INTEGER, value
    for position in range(begin, end):
        if not _ZERO <= byte_at(position) <= _NINE:
            return NOT_INTEGER, value
    while end - begin > 20 and byte_at(begin) == _ZERO:
        begin += 1
    if end - begin > 20:
        return LONG_INTEGER, value
    for position in range(begin, end):
        digit = np.uint64(byte_at(position) - _ZERO)
        if value > _LARGEST_HEAD or (value == _LARGEST_HEAD and digit > _LARGEST_DIGIT):
            return LONG_INTEGER, value
        value = value * np.uint64(10) + digit
    return OK, value


@numba.njit(nogil=True, cache=True, inline="always")
def integer_id(begin: int, end: int) -> tuple[int, np.uint64]:
    """Parse a whole number from -2^63 to 2^64 - 1; of a negative one, the value is its two's complement."""
    negative = byte_at(begin) == _MINUS
    reason, value = _digits(begin + negative, end)
    if negative:
        if reason == OK and value > np.uint64(1 << 63):
            reason = LONG_INTEGER
        value = np.uint64(0) - value
    return reason, value


@numba.njit(nogil=True, cache=True, inline="always")
def integer(begin: int, end: int) -> tuple[int, np.int64]:
    """Parse a whole number of 32 bits."""
    negative = byte_at(begin) == _MINUS
    reason, value = _digits(begin + negative, end)
    if reason == LONG_INTEGER or (reason == OK and value >= np.uint64(1 << 31) + np.uint64(negative)):
        return OUT_OF_RANGE, np.int64(0)
    return reason, -np.int64(value) if negative else np.int64(value)


@numba.njit(nogil=True, cache=True, inline="always")
def hexadecimal_id(begin: int, end: int) -> tuple[int, np.uint64]:
    """Parse up to 16 hexadecimal digits, at least one."""
    count = end - begin
    if count <= 8:
        good, value = eight_digits(padded_digits(begin, count))
        reason = OK if good else NOT_HEX
    else:
        reason, value = _many_hexadecimal_digits(begin, end)
    return reason, value


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _many_hexadecimal_digits(begin: int, end: int) -> tuple[int, np.uint64]:
    """Parse more than 8 digits."""
    if end - begin > 16:
        return LONG_ID, np.uint64(0)
    good, value = eight_digits(word_at(end - 8))
    head_good, head = eight_digits(padded_digits(begin, end - begin - 8))
    return (OK if good and head_good else NOT_HEX), head << np.uint64(32) | value


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def decimal(begin: int, end: int) -> tuple[int, np.float32]:
    """Parse a decimal such as -12.5e-3; return the float32 that is nearest to the nearest float64.

    OUT_OF_RANGE if it is infinite in float32. UNSURE if it depends on more than 19 digits or on the rounding to
    float64, which is rare.
    """
    position = begin
    negative = byte_at(begin) == _MINUS
    if negative or byte_at(begin) == _PLUS:
        position += 1
    mantissa, significant, power = np.uint64(0), 0, np.int64(0)
    is_number = is_fraction = is_cut = False
    while position < end:
        byte = byte_at(position)
        if _ZERO <= byte <= _NINE:
            is_number = True
            if significant < _SIGNIFICANT_DIGITS:
                mantissa = mantissa * np.uint64(10) + np.uint64(byte - _ZERO)
                significant += mantissa != np.uint64(0)
                power -= is_fraction
            else:
                is_cut = is_cut or byte != _ZERO
                power += not is_fraction
        elif byte == _POINT and not is_fraction:
            is_fraction = True
        else:
            break
        position += 1
    if not is_number:
        return NOT_DECIMAL, np.float32(0)
    if position < end:
        is_number, exponent = _exponent(position, end)
        if not is_number:
            return NOT_DECIMAL, np.float32(0)
        power += exponent
    reason, value = _nearest(mantissa, power, is_cut)
    return reason, -value if negative else value


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _exponent(position: int, end: int) -> tuple[bool, np.int64]:
    """Return whether the text is an exponent, such as e-3 or E+12, and its value."""
    value, digits = np.int64(0), 0
    if byte_at(position) | 32 != _EXPONENT:
        return False, value
    position += 1
    negative = position < end and byte_at(position) == _MINUS
    if negative or (position < end and byte_at(position) == _PLUS):
        position += 1
    while position < end and _ZERO <= byte_at(position) <= _NINE:
        value = min(value * 10 + byte_at(position) - _ZERO, np.int64(_MAX_EXPONENT))
        digits += 1
        position += 1
    return position == end and digits > 0, -value if negative else value


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _nearest(mantissa: np.uint64, power: np.int64, is_cut: bool) -> tuple[int, np.float32]:
    """Return mantissa * 10^power as `decimal` does. is_cut: whether digits other than 0 follow the mantissa."""
    if mantissa == np.uint64(0) or power < _SMALLEST_POWER:
        return OK, np.float32(0)
    if power > _LARGEST_POWER:
        return OUT_OF_RANGE, np.float32(0)
    if mantissa <= _EXACT_INTEGERS and -_EXACT_POWER <= power <= _EXACT_POWER and not is_cut:
        # Both numbers are exact in float64, so the operation rounds once.
        if power < 0:
            value = np.float64(mantissa) / _POWERS[-power - _SMALLEST_POWER]
        else:
            value = np.float64(mantissa) * _POWERS[power - _SMALLEST_POWER]
        return OK if np.isfinite(np.float32(value)) else OUT_OF_RANGE, np.float32(value)
    value = np.float64(mantissa) * _POWERS[power - _SMALLEST_POWER]
    low, high = np.float32(value * _BELOW), np.float32(value * _ABOVE)
    if low != high:
        return UNSURE, low
    return OK if np.isfinite(low) else OUT_OF_RANGE, low
