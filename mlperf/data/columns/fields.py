"""Convert the text of one field to its columns of a row, in compiled code that gets addresses."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.columns.numbers import decimal, hexadecimal_id, integer, integer_id
from mlperf.data.columns.plan import DECIMAL, HEXADECIMAL, INTEGER, INTEGER_ID, LABEL, SPLIT
from mlperf.data.columns.word_hash import word_hash
from mlperf.data.text.faults import NO_LABEL, OK
from mlperf.data.text.memory import byte_at, store_byte, store_int32, store_word, word_at
from mlperf.util.compiled_sources import compiled_with

Splits = npt.NDArray[np.uint8]  # [N]: 0 training, 1 test, 2 validation

NO_TEXT = -1
NAN_BITS = int(np.float32(np.nan).view(np.int32))


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def find_text(begin: int, end: int, characters: int, ends: int, first: int, last: int) -> int:
    """Return which of the texts `first` to `last` - 1 a field is; NO_TEXT for none.

    characters, ends: addresses of the arrays in `Texts`.
    """
    for number in range(first, last):
        at = np.int64(word_at(ends + 8 * number))
        if np.int64(word_at(ends + 8 * number + 8)) - at != end - begin:
            continue
        position = begin
        while position < end and byte_at(position) == byte_at(characters + at):
            at += 1
            position += 1
        if position == end:
            return number
    return NO_TEXT


@numba.njit(nogil=True, cache=True, inline="always")
def is_missing(begin: int, end: int, characters: int, ends: int, first: int, last: int) -> bool:
    """Return whether a field is empty or one of the texts of a missing value."""
    may_be = byte_at(characters + byte_at(begin)) != 0
    return begin == end or (may_be and find_text(begin, end, characters, ends, first, last) != NO_TEXT)


@numba.njit(nogil=True, cache=True, inline="always")
def convert_dense(
    begin: int, end: int, is_missing: bool, action: int, stores_floats: bool, keeps_negative: bool
) -> tuple[int, np.int32]:
    """Return OK, UNSURE or the fault, and the 32 bits that are stored."""
    reason = OK
    if is_missing:
        bits = np.int32(NAN_BITS if stores_floats else 0)
    elif action == DECIMAL:
        reason, value = decimal(begin, end)
        bits = np.float32(value).view(np.int32)
    else:
        reason, whole = integer(begin, end)
        if stores_floats:
            bits = np.float32(whole).view(np.int32)
        else:
            bits = np.int32(whole if whole > 0 or keeps_negative else 0)
    return reason, bits


@numba.njit(nogil=True, cache=True, inline="always")
def convert_id(begin: int, end: int, action: int) -> tuple[int, np.uint64]:
    """Return OK or the fault, and the key of an id that is not missing."""
    reason, key = OK, np.uint64(0)
    if action == HEXADECIMAL:
        reason, key = hexadecimal_id(begin, end)
    elif action == INTEGER_ID:
        reason, key = integer_id(begin, end)
    else:
        key = word_hash(begin, end)
    return reason, key


@numba.njit(nogil=True, cache=True, inline="always")
def store_field(
    begin: int,
    end: int,
    action: int,
    separator: int,
    ids: int,
    characters: int,
    ends: int,
    first_missing: int,
    first_test: int,
    first_validation: int,
    last: int,
    stores_floats: bool,
    keeps_negative: bool,
    place: int,
    keys: int,
    split: int,
    cut: int,
) -> int:
    """Store what a field means in the rows; return OK, UNSURE or the fault.

    action, separator, ids: entries of `Actions`. characters, ends: addresses of the arrays in `Texts`.
    first_missing, first_test, first_validation, last: `groups` in it. place, keys, split, cut: addresses of the
    first value of the column in the rows, of the first key, of the split of the row, and of whether ids are cut.
    """
    reason = OK
    if action >= HEXADECIMAL:
        if separator < 0:
            is_id = not is_missing(begin, end, characters, ends, first_missing, first_test)
            key = np.uint64(0)
            if is_id:
                reason, key = convert_id(begin, end, action)
            store_int32(place, np.int32(is_id))
            store_word(keys, key)
        else:
            reason, is_cut = convert_ids(
                begin, end, action, separator, ids, characters, ends, first_missing, first_test, place, keys
            )
            store_byte(cut, np.uint8(is_cut))
    elif action >= INTEGER:
        missing = is_missing(begin, end, characters, ends, first_missing, first_test)
        reason, bits = convert_dense(begin, end, missing, action, stores_floats, keeps_negative)
        store_int32(place, bits)
    elif action == LABEL:
        label = find_text(begin, end, characters, ends, 0, first_missing)
        store_int32(place, np.int32(label))
        reason = NO_LABEL if label == NO_TEXT else OK
    elif action == SPLIT:
        number = find_text(begin, end, characters, ends, first_test, last)
        store_byte(split, np.uint8(0 if number == NO_TEXT else 1 if number < first_validation else 2))
    return reason


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def convert_ids(
    begin: int,
    end: int,
    action: int,
    separator: int,
    ids: int,
    characters: int,
    ends: int,
    first: int,
    last: int,
    flags: int,
    keys: int,
) -> tuple[int, bool]:
    """Store the first `ids` ids between separators, and the empty id for those that are lacking.

    flags, keys: addresses of the ids in the rows, int32, and in the keys, uint64. Return OK or the fault, and
    whether there are more ids.
    """
    for place in range(ids):
        store_int32(flags + 4 * place, np.int32(0))
        store_word(keys + 8 * place, np.uint64(0))
    for place in range(ids):
        stop = begin
        while stop < end and byte_at(stop) != separator:
            stop += 1
        if not is_missing(begin, stop, characters, ends, first, last):
            reason, key = convert_id(begin, stop, action)
            if reason != OK:
                return reason, False
            store_int32(flags + 4 * place, np.int32(1))
            store_word(keys + 8 * place, key)
        if stop == end:
            return OK, False
        begin = stop + 1
    return OK, True
