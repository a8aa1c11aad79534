"""Raw text to rows of numbers: one pass over the bytes, no Python per row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.row_format import COLUMNS, FIRST_ID
from mlperf.errors import RunError

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int32]

BLOCK_BYTES = 8 << 20
_SHORTEST_ROW = COLUMNS + 1  # a label, the separators and the line's end

_OK, _TOO_FEW, _TOO_MANY, _NOT_INTEGER, _OUT_OF_RANGE, _NOT_HEX, _LONG_ID, _NO_LABEL = range(8)
_MESSAGES = {
    _TOO_FEW: f"the row ends here, after too few columns; allowed are {COLUMNS}",
    _TOO_MANY: f"the row goes on after this column; allowed are {COLUMNS}",
    _NOT_INTEGER: "not a whole number; allowed are digits with or without a minus, or nothing",
    _OUT_OF_RANGE: "the number does not fit in 32 bits; allowed is -2147483648 to 2147483647",
    _NOT_HEX: "not an id; allowed are up to 8 hexadecimal digits, or nothing",
    _LONG_ID: "an id of more than 8 digits; allowed are up to 8 hexadecimal digits, or nothing",
    _NO_LABEL: "not a label; allowed are 0 and 1",
}


def text_blocks(path: Path) -> Iterator[Bytes]:
    """Yield the file in blocks of whole lines, each ending in a newline; a missing last one is added.

    RunError if the file is missing or empty, or has a line longer than a block.
    """
    try:
        with path.open("rb", buffering=0) as file:
            rest = b""
            empty = True
            while piece := file.read(BLOCK_BYTES):
                empty = False
                end = piece.rfind(b"\n") + 1
                if end == 0:
                    rest += piece
                    if len(rest) > BLOCK_BYTES:
                        raise RunError(
                            f"{path}: no line end within {BLOCK_BYTES >> 20} MB: not a Criteo click log"
                        )
                    continue
                yield np.frombuffer(rest + piece[:end], np.uint8)
                rest = piece[end:]
            if empty:
                raise RunError(f"{path}: empty file; expected rows of {COLUMNS} columns separated by tabs")
            if rest:
                yield np.frombuffer(rest + b"\n", np.uint8)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def count_rows(path: Path) -> int:
    """Return the number of lines of the file."""
    return sum(int(_count_newlines(block)) for block in text_blocks(path))


def label_blocks(path: Path) -> Iterator[npt.NDArray[np.int32]]:
    """Yield the labels of the file's lines, block by block: 0 where a line begins so, otherwise 1, good or bad."""
    for block in text_blocks(path):
        yield _labels(block, _count_newlines(block))


def parse_block(text: Bytes, max_ind_range: int) -> tuple[Rows, tuple[int, int] | None]:
    """Parse whole lines into int32 [rows, 40]: label, integers (negative or missing: 0), ids modulo the limit.

    Ids are the bits of uint32. The second value is None, or the error code and column (from 1) of the row
    after the last one returned; `describe` words it.
    """
    rows = np.empty((len(text) // _SHORTEST_ROW + 1, COLUMNS), np.int32)
    modulus = max_ind_range if 0 < max_ind_range < 1 << 32 else 1 << 32
    count, code, column = _parse(text, rows, modulus)
    return rows[:count], None if code == _OK else (code, column + 1)


def describe(path: Path, row: int, error: tuple[int, int]) -> RunError:
    """Return the error for `row` (from 1) of the file."""
    code, column = error
    return RunError(f"{path}: row {row}, column {column}: {_MESSAGES[code]}")


@numba.njit(nogil=True, cache=True)
def _count_newlines(text: Bytes) -> int:
    count = 0
    for byte in text:
        count += byte == 10
    return count


@numba.njit(nogil=True, cache=True)
def _labels(text: Bytes, count: int) -> npt.NDArray[np.int32]:
    labels = np.empty(count, np.int32)
    at_start = True
    line = 0
    for byte in text:
        if at_start:
            labels[line] = byte != 48
            line += 1
        at_start = byte == 10
    return labels


@numba.njit(nogil=True, cache=True)
def _parse(  # noqa: PLR0911, PLR0912  a parser is its branches
    text: Bytes, rows: Rows, modulus: int
) -> tuple[int, int, int]:
    """Fill `rows`; return how many, and the error code and column (from 0) of the first bad row.

    The last byte is a newline, at which every inner loop stops: no other bound is checked.
    """
    at = 0
    row = 0
    while at < len(text):
        for column in range(COLUMNS):
            value = 0
            digits = 0
            if column < FIRST_ID:
                negative = text[at] == 45
                at += negative
                while 48 <= text[at] <= 57:
                    value = value * 10 + (text[at] - 48)
                    digits += 1
                    at += 1
                    if value > 2147483647 + negative:
                        return row, _OUT_OF_RANGE, column
                if negative:
                    if digits == 0:
                        return row, _NOT_INTEGER, column
                    value = 0
                if column == 0 and (digits != 1 or value > 1 or negative):
                    # An empty line is a row too short rather than a bad label.
                    at_end = text[at] in (10, 13) and digits == 0 and not negative
                    return row, _TOO_FEW if at_end else _NO_LABEL, column
            else:
                while True:
                    byte = text[at]
                    if 48 <= byte <= 57:
                        digit = byte - 48
                    elif 97 <= byte <= 102:
                        digit = byte - 87
                    elif 65 <= byte <= 70:
                        digit = byte - 55
                    else:
                        break
                    value = value * 16 + digit
                    digits += 1
                    at += 1
                    if digits > 8:
                        return row, _LONG_ID, column
                value %= modulus
            rows[row, column] = np.uint32(value)
            last = column == COLUMNS - 1
            if (text[at] == 9 and not last) or (text[at] == 10 and last):
                at += 1
            elif text[at] == 13 and text[at + 1] == 10 and last:
                at += 2
            elif text[at] == 9:
                return row, _TOO_MANY, column
            elif text[at] == 10 or (text[at] == 13 and text[at + 1] == 10):
                return row, _TOO_FEW, column
            else:
                return row, _NOT_INTEGER if column < FIRST_ID else _NOT_HEX, column
        row += 1
    return row, _OK, 0
