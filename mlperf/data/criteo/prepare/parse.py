"""Raw text to rows of numbers: one pass over the bytes, no Python per row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.prepare.text_blocks import Bytes, TextBlock
from mlperf.data.schema import COLUMNS, FIRST_ID
from mlperf.util.errors import RunError

Rows = npt.NDArray[np.int32]
Faults = npt.NDArray[np.int64]  # a row each: line in the block, reason, column (from 0), offset of the field

_SHORTEST_ROW = COLUMNS + 1  # a label, the separators and the line's end
_SHOWN_BYTES = 40

OK, TOO_FEW, TOO_MANY, NOT_INTEGER, OUT_OF_RANGE, NOT_HEX, LONG_ID, NO_LABEL, LONG_LINE = range(9)
REASONS = {
    TOO_FEW: f"the row ends here, after too few columns; allowed are {COLUMNS}",
    TOO_MANY: f"the row goes on after this column; allowed are {COLUMNS}",
    NOT_INTEGER: "not a whole number; allowed are digits with or without a minus, or nothing",
    OUT_OF_RANGE: "the number does not fit in 32 bits; allowed is -2147483648 to 2147483647",
    NOT_HEX: "not an id; allowed are up to 8 hexadecimal digits, or nothing",
    LONG_ID: "an id of more than 8 digits; allowed are up to 8 hexadecimal digits, or nothing",
    NO_LABEL: "not a label; allowed are 0 and 1",
    LONG_LINE: "no end of the line within 2 MB: not a Criteo click log",
}

REASON_NAMES = {
    TOO_FEW: "too few columns",
    TOO_MANY: "too many columns",
    NOT_INTEGER: "not a whole number",
    OUT_OF_RANGE: "number out of range",
    NOT_HEX: "not an id",
    LONG_ID: "id too long",
    NO_LABEL: "not a label",
    LONG_LINE: "line too long",
}


@dataclass(frozen=True)
class Parsed:
    """A parsed block: the good rows, int32 [N, 40]; how many lines it has; what is wrong with the others."""

    rows: Rows
    lines: int
    faults: Faults


class BlockParser:
    """Parses blocks one after the other into the same memory. max_ind_range: ids modulo it, -1: no limit."""

    def __init__(self, max_ind_range: int) -> None:
        self._modulus = np.uint64(max_ind_range if 0 < max_ind_range < 1 << 32 else 1 << 32)
        self._rows = np.empty((0, COLUMNS), np.int32)

    def parse(self, block: TextBlock) -> Parsed:
        """Parse whole lines: label, integers (negative or missing: 0), ids (bits of uint32) modulo the limit.

        The rows stay as they are until the next call.
        """
        if block.overlong:
            return Parsed(self._rows[:0], 1, np.array([[0, LONG_LINE, 0, 0]]))
        most = block.length // _SHORTEST_ROW + 1
        if len(self._rows) < most:
            self._rows = np.empty((most, COLUMNS), np.int32)
        faults = np.empty((block.length, 4), np.int64)  # takes memory only where it is written
        count, lines = _parse(block.text, block.length, self._rows, self._modulus, faults)
        return Parsed(self._rows[:count], lines, faults[: lines - count].copy())


def describe(path: Path, first_line: int, block: TextBlock, fault: npt.NDArray[np.int64]) -> RunError:
    """Return the error for a fault of a block whose first line is number `first_line` (from 1) of the file."""
    line, reason, column, offset = (int(value) for value in fault)
    field = block.text[offset : offset + _SHOWN_BYTES + 1].tobytes()
    for separator in (b"\t", b"\n"):
        field = field.partition(separator)[0]
    found = f"{field[:_SHOWN_BYTES]!r}{'...' if len(field) > _SHOWN_BYTES else ''}"[1:]
    return RunError(f"{path}: row {first_line + line}, column {column + 1}: {found}: {REASONS[reason]}")


_BYTES = np.uint64(0x0101010101010101)
_LOW_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)


@numba.njit(nogil=True, cache=True, inline="always")
def _eight_bytes(text: Bytes, at: np.uint64) -> np.uint64:
    """Read a little-endian word: one load. Unsigned, or the compiler checks every index for < 0."""
    word = np.uint64(text[at])
    word |= np.uint64(text[at + np.uint64(1)]) << np.uint64(8)
    word |= np.uint64(text[at + np.uint64(2)]) << np.uint64(16)
    word |= np.uint64(text[at + np.uint64(3)]) << np.uint64(24)
    word |= np.uint64(text[at + np.uint64(4)]) << np.uint64(32)
    word |= np.uint64(text[at + np.uint64(5)]) << np.uint64(40)
    word |= np.uint64(text[at + np.uint64(6)]) << np.uint64(48)
    return word | np.uint64(text[at + np.uint64(7)]) << np.uint64(56)


@numba.njit(nogil=True, cache=True, inline="always")
def _eight_digits(word: np.uint64) -> tuple[bool, np.uint64]:
    """Return whether all eight bytes are hexadecimal digits, and their value, the first byte the highest digit.

    A digit's value is its low nibble, plus 9 for a letter, which has bit 6. Written back as the character it
    stands for, a digit is the byte that was read (letters in lower case); any other byte is not.
    """
    letter = (word >> np.uint64(6)) & _BYTES
    digit = (word & _LOW_NIBBLES) + letter * np.uint64(9)
    above_nine = ((digit + _BYTES * np.uint64(6)) >> np.uint64(4)) & _BYTES
    written = digit + _BYTES * np.uint64(48) + above_nine * np.uint64(39)
    good = written == (word | letter << np.uint64(5)) and digit & ~_LOW_NIBBLES == np.uint64(0)
    pairs = (digit << np.uint64(4) | digit >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    fours = (pairs << np.uint64(8) | pairs >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    return good, (fours << np.uint64(16) | fours >> np.uint64(32)) & np.uint64(0xFFFFFFFF)


@numba.njit(nogil=True, cache=True, inline="always")
def _integer(text: Bytes, at: np.uint64, is_label: bool) -> tuple[int, np.uint64, np.uint64]:
    """Read a whole number; return the reason why it is none, where it ends, and its value or 0."""
    value, digits = np.uint64(0), 0
    negative = text[at] == 45
    if negative:
        at += np.uint64(1)
    while 48 <= text[at] <= 57:
        value = value * np.uint64(10) + np.uint64(text[at] - 48)
        digits += 1
        at += np.uint64(1)
        if value > np.uint64(2147483648) or (value == np.uint64(2147483648) and not negative):
            return (NO_LABEL if is_label else OUT_OF_RANGE), at, value
    if is_label and (digits != 1 or value > np.uint64(1) or negative):
        # An empty line is a row too short rather than a bad label.
        at_end = text[at] == 10 or (text[at] == 13 and text[at + np.uint64(1)] == 10)
        return (TOO_FEW if at_end and digits == 0 and not negative else NO_LABEL), at, value
    if negative:
        return (OK if digits else NOT_INTEGER), at, np.uint64(0)
    return OK, at, value


@numba.njit(nogil=True, cache=True, inline="always")
def _is_hexadecimal(byte: int) -> bool:
    return 48 <= byte <= 57 or 97 <= (byte | 32) <= 102


@numba.njit(nogil=True, cache=True, inline="always")
def _identifier(text: Bytes, at: np.uint64) -> tuple[int, np.uint64, np.uint64]:
    """Read an id of any number of digits, as _integer does."""
    value, digits = np.uint64(0), 0
    while _is_hexadecimal(text[at]):
        byte = np.uint64(text[at])
        value = value * np.uint64(16) + (byte & np.uint64(15)) + np.uint64(9) * (byte >> np.uint64(6))
        digits += 1
        at += np.uint64(1)
        if digits > 8:
            return LONG_ID, at, value
    return OK, at, value


@numba.njit(nogil=True, cache=True, inline="always")
def _separator(text: Bytes, at: np.uint64, column: int) -> tuple[int, np.uint64]:
    """Pass the tab behind a field, or the line's end behind the last; return the reason why there is none."""
    one = np.uint64(1)
    last = column == COLUMNS - 1
    byte = text[at]
    windows_end = byte == 13 and text[at + one] == 10
    if (byte == 9 and not last) or (byte == 10 and last):
        return OK, at + one
    if windows_end and last:
        return OK, at + one + one
    if byte == 9:
        return TOO_MANY, at
    if byte == 10 or windows_end:
        return TOO_FEW, at
    if column == 0:
        return NO_LABEL, at
    return (NOT_INTEGER if column < FIRST_ID else NOT_HEX), at


@numba.njit("(uint8[::1], int64, int32[:, ::1], uint64, int64[:, ::1])", nogil=True, cache=True)
def _parse(text: Bytes, length: int, rows: Rows, modulus: np.uint64, faults: Faults) -> tuple[int, int]:
    """Fill `rows` and `faults`; return the number of good rows and of lines.

    The last byte is a newline, at which every inner loop stops: no other bound is checked.
    """
    one = np.uint64(1)
    at, end = np.uint64(0), np.uint64(length)
    row = line = 0
    while at < end:
        reason, column = OK, 0
        while column < COLUMNS:
            field = at
            if column < FIRST_ID:
                reason, at, value = _integer(text, at, column == 0)
            else:
                good, value = _eight_digits(_eight_bytes(text, at))
                if good:
                    at += np.uint64(8)
                    reason = LONG_ID if _is_hexadecimal(text[at]) else OK
                else:
                    reason, at, value = _identifier(text, at)
                value %= modulus
            rows[row, column] = np.uint32(value)
            if reason == OK:
                reason, at = _separator(text, at, column)
            if reason != OK:
                faults[line - row, 0], faults[line - row, 1] = line, reason
                faults[line - row, 2], faults[line - row, 3] = column, field
                while text[at] != 10:
                    at += one
                at += one
                break
            column += 1
        row += reason == OK
        line += 1
    return row, line
