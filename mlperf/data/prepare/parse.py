"""Parse raw text to rows in one compiled pass over the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import CRITEO, Rows
from mlperf.data.text.blocks import Bytes, TextBlock
from mlperf.data.text.eight_bytes import eight_bytes, eight_digits
from mlperf.data.text.faults import (
    LONG_ID,
    LONG_LINE,
    NO_LABEL,
    NOT_HEX,
    NOT_INTEGER,
    OK,
    OUT_OF_RANGE,
    TOO_FEW,
    TOO_MANY,
    Faults,
)
from mlperf.util.compiled_sources import compiled_with
from mlperf.util.errors import RunError

CRITEO.require_one_hot("the parser")

_COLUMNS = CRITEO.columns  # constants of the compiled code
_FIRST_ID = CRITEO.first_id
_TAB, _NEWLINE, _RETURN, _MINUS, _ZERO, _NINE = b"\t\n\r-09"
_MIN_ROW_BYTES = _COLUMNS + 1  # a label, the separators and the newline; the other fields may be empty
_SHOWN_BYTES = 40
_ALL_BITS = (1 << 64) - 1
MAX_INT32 = (1 << 31) - 1

_MESSAGES = {
    TOO_FEW: "too few columns; expected {columns}",
    TOO_MANY: "too many columns; expected {columns}",
    NOT_INTEGER: "not a whole number; allowed are digits with or without a minus, or nothing",
    OUT_OF_RANGE: "the number does not fit in 32 bits; allowed is -2147483648 to 2147483647",
    NOT_HEX: "not an id; allowed are up to 8 hexadecimal digits, or nothing",
    LONG_ID: "an id of more than 8 digits; allowed are up to 8 hexadecimal digits, or nothing",
    NO_LABEL: "not a label; allowed are 0 and 1",
    LONG_LINE: "line longer than 2 MB; expected a Criteo click log",
}


@dataclass(frozen=True)
class ParsedBlock:
    """What a block contains.

    rows: the good rows, int32 [N, columns]. lines: number of lines. faults: the other lines, with the reason.
    keys, splits, cut: None: the ids are in the rows, no column decides to which split a row belongs, and a field
        has one id.
    """

    rows: Rows
    lines: int
    faults: Faults
    keys: None = None
    splits: None = None
    cut: None = None


class BlockParser:
    """Parses blocks into memory that it reuses.

    max_ind_range: ids are taken modulo it; -1: no limit. keep_negative: negative integers are kept, otherwise 0.
    """

    def __init__(self, max_ind_range: int, *, keep_negative: bool = False) -> None:
        self._modulus = np.uint64(max_ind_range if 0 < max_ind_range < 1 << 32 else 1 << 32)
        self._negative_bits = np.uint64(_ALL_BITS if keep_negative else 0)
        self._rows = np.empty((0, _COLUMNS), np.int32)

    def parse(self, block: TextBlock) -> ParsedBlock:
        """Parse the lines of a block. The returned rows are a view that the next call overwrites.

        A row is the label, the dense features (0 if empty) and the ids (bits of a uint32; 0 if empty).
        """
        if block.overlong:
            return ParsedBlock(self._rows[:0], 1, np.array([[0, LONG_LINE, 0, 0]]))
        max_rows = block.length // _MIN_ROW_BYTES + 1
        if len(self._rows) < max_rows:
            self._rows = np.empty((max_rows, _COLUMNS), np.int32)
        faults = np.empty((block.length, 4), np.int64)  # pages that are not written use no memory
        count, lines = _parse(block.text, block.length, self._rows, self._modulus, self._negative_bits, faults)
        return ParsedBlock(self._rows[:count], lines, faults[: lines - count].copy())


def fault_error(
    path: Path, first_line: int, block: TextBlock, fault: npt.NDArray[np.int64], *, columns: int = _COLUMNS
) -> RunError:
    """Return the error for a row of `Faults`.

    first_line: number of the block's first line in the file, from 1. columns: number of columns of the text.
    """
    line, reason, column, position = (int(value) for value in fault)
    field = block.text[position : position + _SHOWN_BYTES + 1].tobytes()
    for separator in (b"\t", b"\n"):
        field = field.partition(separator)[0]
    shown = f"{field[:_SHOWN_BYTES]!r}{'...' if len(field) > _SHOWN_BYTES else ''}"[1:]
    message = _MESSAGES[reason].format(columns=columns)
    return RunError(f"{path}: row {first_line + line}, column {column + 1}: {shown}: {message}")


@numba.njit("int64(int32[:, ::1])", nogil=True, cache=True)
def smallest_integer(rows: Rows) -> int:
    """Return the smallest dense feature of rows, the largest int32 if there are none."""
    smallest = MAX_INT32
    for row in range(len(rows)):
        for column in range(1, _FIRST_ID):
            smallest = min(smallest, rows[row, column])
    return smallest


@numba.njit(nogil=True, cache=True, inline="always")
def _integer(
    text: Bytes, position: np.uint64, is_label: bool, negative_bits: np.uint64
) -> tuple[int, np.uint64, np.uint64]:
    """Parse an integer; return OK or the fault, the position of its end, and its value.

    Of a negative value, the bits of `negative_bits` are returned: all or none.
    """
    value, digits = np.uint64(0), 0
    negative = text[position] == _MINUS
    if negative:
        position += np.uint64(1)
    while _ZERO <= text[position] <= _NINE:
        value = value * np.uint64(10) + np.uint64(text[position] - _ZERO)
        digits += 1
        position += np.uint64(1)
        if value > np.uint64(2147483648) or (value == np.uint64(2147483648) and not negative):
            return (NO_LABEL if is_label else OUT_OF_RANGE), position, value
    if is_label and (digits != 1 or value > np.uint64(1) or negative):
        # An empty line is reported as a row that is too short, not as a bad label.
        at_end = text[position] == _NEWLINE or (
            text[position] == _RETURN and text[position + np.uint64(1)] == _NEWLINE
        )
        return (TOO_FEW if at_end and digits == 0 and not negative else NO_LABEL), position, value
    if negative:
        return (OK if digits else NOT_INTEGER), position, (np.uint64(0) - value) & negative_bits
    return OK, position, value


@numba.njit(nogil=True, cache=True, inline="always")
def _is_hexadecimal(byte: int) -> bool:
    return _ZERO <= byte <= _NINE or 97 <= (byte | 32) <= 102  # a to f, in either case


@numba.njit(nogil=True, cache=True, inline="always")
def _identifier(text: Bytes, position: np.uint64) -> tuple[int, np.uint64, np.uint64]:
    """Parse an id of any number of digits; return as `_integer` does."""
    value, digits = np.uint64(0), 0
    while _is_hexadecimal(text[position]):
        byte = np.uint64(text[position])
        value = value * np.uint64(16) + (byte & np.uint64(15)) + np.uint64(9) * (byte >> np.uint64(6))
        digits += 1
        position += np.uint64(1)
        if digits > 8:
            return LONG_ID, position, value
    return OK, position, value


@numba.njit(nogil=True, cache=True, inline="always")
def _separator(text: Bytes, position: np.uint64, column: int) -> tuple[int, np.uint64]:
    """Skip the tab after a field or the line end after the last; return OK or the fault, and the position."""
    one = np.uint64(1)
    last = column == _COLUMNS - 1
    byte = text[position]
    crlf = byte == _RETURN and text[position + one] == _NEWLINE
    if (byte == _TAB and not last) or (byte == _NEWLINE and last):
        return OK, position + one
    if crlf and last:
        return OK, position + one + one
    if byte == _TAB:
        return TOO_MANY, position
    if byte == _NEWLINE or crlf:
        return TOO_FEW, position
    if column == 0:
        return NO_LABEL, position
    return (NOT_INTEGER if column < _FIRST_ID else NOT_HEX), position


@numba.njit("(uint8[::1], int64, int32[:, ::1], uint64, uint64, int64[:, ::1])", nogil=True, cache=True)
@compiled_with("mlperf.data.text", "mlperf.data.schema")
def _parse(
    text: Bytes, length: int, rows: Rows, modulus: np.uint64, negative_bits: np.uint64, faults: Faults
) -> tuple[int, int]:
    """Fill `rows` and `faults`; return the number of good rows and the number of lines.

    The last byte of the text is a newline, at which every inner loop stops: the end is not checked otherwise.
    """
    one = np.uint64(1)
    position, end = np.uint64(0), np.uint64(length)
    row = line = 0
    while position < end:
        reason, column = OK, 0
        while column < _COLUMNS:
            field = position
            if column < _FIRST_ID:
                reason, position, value = _integer(text, position, column == 0, negative_bits)
            else:
                good, value = eight_digits(eight_bytes(text, position))
                if good:
                    position += np.uint64(8)
                    reason = LONG_ID if _is_hexadecimal(text[position]) else OK
                else:
                    reason, position, value = _identifier(text, position)
                value %= modulus
            rows[row, column] = np.uint32(value)
            if reason == OK:
                reason, position = _separator(text, position, column)
            if reason != OK:
                faults[line - row, 0], faults[line - row, 1] = line, reason
                faults[line - row, 2], faults[line - row, 3] = column, field
                while text[position] != _NEWLINE:
                    position += one
                position += one
                break
            column += 1
        row += reason == OK
        line += 1
    return row, line
