"""Parse text with any columns to rows in one compiled pass over the bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.columns.description import ColumnsDescription, SplitByValue
from mlperf.data.columns.fields import Splits, store_field
from mlperf.data.columns.numbers import UNSURE
from mlperf.data.columns.plan import ACTION, IDS, SEPARATOR, TABLE, TARGET, Actions, Texts
from mlperf.data.columns.settled import settled
from mlperf.data.schema import Keys, Rows
from mlperf.data.text.blocks import PADDING, Bytes, TextBlock
from mlperf.data.text.eight_bytes import ONES, first_of_two
from mlperf.data.text.faults import (
    AFTER_QUOTE,
    LONG_LINE,
    OK,
    OPEN_QUOTE,
    OUT_OF_RANGE,
    TOO_FEW,
    TOO_MANY,
    Faults,
)
from mlperf.data.text.memory import byte_at, store_byte
from mlperf.util.compiled_sources import compiled_with

_NEWLINE, _RETURN, _QUOTE = b'\n\r"'

Unsure = npt.NDArray[np.int64]  # [values, 6]: row, its column, begin and end in the text, line, column


@dataclass(frozen=True)
class ParsedColumns:
    """What a block contains.

    rows: the good rows, int32 [N, columns]: the label (-1 if the log has none), the dense features as they are
    stored, and in the columns of the ids, 1 for an id and 0 for the empty one.
    keys: the ids, uint64 [N, ids per row]; 0 for the empty one.
    splits: split of each row, uint8 [N]: 0 training, 1 test, 2 validation; None if it does not depend on the row.
    cut: number of fields of each categorical column, int64 [tables], that have more ids than are kept.
    lines: number of lines. faults: the other lines, with the reason.
    """

    rows: Rows
    keys: Keys
    splits: Splits | None
    cut: npt.NDArray[np.int64]
    lines: int
    faults: Faults


class ColumnsParser:
    """Parses blocks into memory that it reuses.

    actions: what to do with each column of the text. separator: between fields.
    keeps_negative: whether negative integers that are stored as integers are kept; otherwise they become 0.
    """

    def __init__(
        self,
        description: ColumnsDescription,
        actions: Actions,
        separator: str,
        *,
        has_label: bool = True,
        keeps_negative: bool = False,
    ) -> None:
        self._description = description
        self._schema = description.schema
        self._actions = actions
        self._separator = ord(separator)
        self._has_label = has_label
        self._keeps_negative = keeps_negative
        self._texts = Texts.of(description)
        self._by_value = isinstance(description.split, SplitByValue)
        self._allocate(0)

    def _allocate(self, rows: int) -> None:
        schema = self._schema
        self._rows = np.empty((rows, schema.columns), np.int32)
        if not self._has_label:
            self._rows[:, 0] = -1
        self._keys = np.zeros((rows, schema.columns - schema.first_id), np.uint64)
        self._splits = np.zeros(rows if self._by_value else 0, np.uint8)
        self._cut = np.zeros((rows, schema.tables), np.bool_)

    def parse(self, block: TextBlock) -> ParsedColumns:
        """Parse the lines of a block. The returned arrays are views that the next call overwrites."""
        if block.overlong:
            return self._found(slice(0), 1, np.array([[0, LONG_LINE, 0, 0]]))
        max_rows = block.length // max(1, len(self._actions)) + 1  # separators and the newline
        if len(self._rows) < max_rows:
            self._allocate(max_rows)
        # Pages that are not written use no memory.
        faults = np.empty((block.length, 4), np.int64)
        unsure = np.empty((block.length, 6), np.int64)
        unquoted = np.empty(block.length + PADDING, np.uint8)
        texts = self._texts
        count, lines, unsure_count = _parse(
            block.text.ctypes.data,
            block.length,
            unquoted.ctypes.data,
            self._separator,
            self._actions,
            self._schema.first_id,
            self._description.stores_floats,
            self._keeps_negative,
            texts.characters.ctypes.data,
            texts.ends.ctypes.data,
            texts.groups,
            self._schema.columns,
            self._schema.tables,
            self._rows.ctypes.data,
            self._keys.ctypes.data,
            self._splits.ctypes.data,
            self._cut.ctypes.data,
            faults,
            unsure,
        )
        kept: slice | npt.NDArray[np.int64] = slice(count)
        bad = faults[: lines - count].copy()
        if unsure_count:
            kept, bad = self._settle(count, bad, block.text, unsure[:unsure_count])
        return self._found(kept, lines, bad)

    def _settle(
        self, count: int, faults: Faults, text: Bytes, unsure: Unsure
    ) -> tuple[npt.NDArray[np.int64], Faults]:
        """Compute the values that depend on more digits; rows with one that float32 cannot hold become faults.

        Return the numbers of the other rows, and all faults.
        """
        bad: dict[int, list[int]] = {}
        for row, target, begin, end, line, column in unsure.tolist():
            self._rows[row, target], is_finite = settled(text[begin:end])
            if not is_finite:
                bad.setdefault(row, [line, OUT_OF_RANGE, column, begin])
        kept = np.delete(np.arange(count), list(bad))
        faults = np.concatenate([faults, np.array(list(bad.values()), np.int64).reshape(-1, 4)])
        return kept, faults[np.argsort(faults[:, 0])]

    def _found(self, kept: slice | npt.NDArray[np.int64], lines: int, faults: Faults) -> ParsedColumns:
        return ParsedColumns(
            self._rows[kept],
            self._keys[kept],
            self._splits[kept] if self._by_value else None,
            np.count_nonzero(self._cut[kept], axis=0),
            lines,
            faults,
        )


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _unquote(begin: int, separator: int, unquoted: int) -> tuple[int, int, int]:
    """Copy a quoted field that begins at address `begin` without its quotes; two quotes within it are one.

    Return OK or the fault, the end of the copy, and the address of the separator or newline after the field.
    """
    position = begin + 1
    while True:
        byte = byte_at(position)
        if byte == _NEWLINE:
            return OPEN_QUOTE, unquoted, position
        position += 1
        if byte == _QUOTE:
            if byte_at(position) != _QUOTE:
                break
            position += 1
        store_byte(unquoted, np.uint8(byte))
        unquoted += 1
    if byte_at(position) == _RETURN and byte_at(position + 1) == _NEWLINE:
        position += 1
    at_end = byte_at(position) in (separator, _NEWLINE)
    return (OK if at_end else AFTER_QUOTE), unquoted, position


@numba.njit(nogil=True, cache=True, inline="always")
def _next_field(field: int, separator: int, unquoted: int) -> tuple[int, int, int, int]:
    """Return OK or the fault, begin and end of a field without quotes, and the address of the byte after it."""
    if byte_at(field) == _QUOTE:
        begin = unquoted
        reason, end, position = _unquote(field, separator, unquoted)
    else:
        reason, begin = OK, field
        end = position = first_of_two(field, np.uint64(separator) * ONES, np.uint64(_NEWLINE) * ONES)
        if byte_at(position) == _NEWLINE and end > begin and byte_at(end - 1) == _RETURN:
            end -= 1
    return reason, begin, end, position


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _parse(
    text: int,
    length: int,
    unquoted: int,
    separator: int,
    actions: Actions,
    first_id: int,
    stores_floats: bool,
    keeps_negative: bool,
    characters: int,
    ends: int,
    groups: npt.NDArray[np.int64],
    columns: int,
    tables: int,
    rows: int,
    keys: int,
    splits: int,
    cut: int,
    faults: Faults,
    unsure: Unsure,
) -> tuple[int, int, int]:
    """Fill the arrays; return the number of good rows, of lines and of unsure values.

    text, unquoted, characters, ends, rows, keys, splits, cut: addresses. columns, tables: of the rows. The last
    byte of the text is a newline, at which every inner loop stops: the end is not checked otherwise.
    """
    first_missing, first_test, first_validation, texts = groups
    position, last = text, len(actions) - 1
    row = line = unsure_count = 0
    while position < text + length:
        reason, column, line_unsure = OK, 0, unsure_count
        while column <= last:
            field = position
            reason, begin, end, position = _next_field(field, separator, unquoted)
            at_end = byte_at(position) == _NEWLINE
            if reason == OK and at_end != (column == last):
                reason = TOO_FEW if at_end else TOO_MANY
            target = actions[column, TARGET]
            if reason == OK:
                reason = store_field(
                    begin,
                    end,
                    actions[column, ACTION],
                    actions[column, SEPARATOR],
                    actions[column, IDS],
                    characters,
                    ends,
                    first_missing,
                    first_test,
                    first_validation,
                    texts,
                    stores_floats,
                    keeps_negative,
                    rows + 4 * (row * columns + target),
                    keys + 8 * (row * (columns - first_id) + target - first_id),
                    splits + row,
                    cut + row * tables + actions[column, TABLE],
                )
            if reason == UNSURE:
                reason = OK
                size, begin = end - begin, field - text + (byte_at(field) == _QUOTE)
                unsure[unsure_count, 0], unsure[unsure_count, 1] = row, target
                unsure[unsure_count, 2], unsure[unsure_count, 3] = begin, begin + size
                unsure[unsure_count, 4], unsure[unsure_count, 5] = line, column
                unsure_count += 1
            if reason != OK:
                faults[line - row, 0], faults[line - row, 1] = line, reason
                faults[line - row, 2], faults[line - row, 3] = column, field - text
                unsure_count = line_unsure
                while byte_at(position) != _NEWLINE:
                    position += 1
                position += 1
                break
            position += 1
            column += 1
        row += reason == OK
        line += 1
    return row, line, unsure_count
