"""Convert strings in Arrow arrays, and lists of them, as the fields of a text, in compiled code."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.columns.arrow_types import as_text
from mlperf.data.columns.fields import convert_id, is_missing, store_field
from mlperf.data.columns.numbers import UNSURE
from mlperf.data.columns.plan import ACTION, IDS, SEPARATOR, TABLE, TARGET, Texts
from mlperf.data.columns.settled import settled
from mlperf.data.schema import Rows
from mlperf.data.text.blocks import PADDING, Bytes
from mlperf.data.text.faults import OK, OUT_OF_RANGE
from mlperf.data.text.memory import store_int32, store_word
from mlperf.util.compiled_sources import compiled_with

Reasons = npt.NDArray[np.int64]  # of each row, OK or the fault


def _parts(values: Any) -> tuple[Bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the characters of a `LargeBinaryArray`, and the begin and end of each value in them.

    A null is an empty value. The characters are a copy: eight more bytes can be read after the last.
    """
    _, offsets, characters = values.buffers()
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    text = np.zeros((0 if characters is None else characters.size) + PADDING, np.uint8)
    if characters is not None:
        text[: characters.size] = np.frombuffer(characters, np.uint8)
    begins = ends[:-1]
    stops = np.where(values.is_valid().to_numpy(zero_copy_only=False), ends[1:], begins)
    return text, begins, stops


def convert_strings(
    values: Any,
    action: npt.NDArray[np.int64],
    texts: Texts,
    rows: Rows,
    keys: npt.NDArray[np.uint64],
    splits: npt.NDArray[np.uint8],
    cut: npt.NDArray[np.bool_],
    first_id: int,
    *,
    stores_floats: bool,
    keeps_negative: bool,
) -> Reasons:
    """Convert a column, as `store_field` does. values: `pyarrow.LargeBinaryArray`. action: a row of `Actions`."""
    characters, begins, ends = _parts(values)
    reasons = np.zeros(len(values), np.int64)
    _convert_strings(
        *(characters.ctypes.data, begins, ends, action, texts.characters.ctypes.data, texts.ends.ctypes.data),
        *(texts.groups, rows.shape[1], cut.shape[1], first_id, stores_floats, keeps_negative),
        *(rows.ctypes.data, keys.ctypes.data, splits.ctypes.data, cut.ctypes.data, reasons),
    )
    for row in np.flatnonzero(reasons == UNSURE):
        bits, is_finite = settled(characters[begins[row] : ends[row]])
        rows[row, action[TARGET]] = bits
        reasons[row] = OK if is_finite else OUT_OF_RANGE
    return reasons


def convert_lists(
    values: Any,
    action: npt.NDArray[np.int64],
    texts: Texts,
    rows: Rows,
    keys: npt.NDArray[np.uint64],
    cut: npt.NDArray[np.bool_],
    first_id: int,
) -> Reasons:
    """Convert a column of lists of ids. values: `pyarrow.ListArray` or `LargeListArray`."""
    characters, begins, ends = _parts(as_text(values.flatten()))
    counts = np.nan_to_num(values.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    reasons = np.zeros(len(values), np.int64)
    _convert_lists(
        *(characters.ctypes.data, begins, ends, np.cumsum(counts) - counts, counts, action),
        *(texts.characters.ctypes.data, texts.ends.ctypes.data, texts.groups, rows.shape[1], first_id),
        *(rows.ctypes.data, keys.ctypes.data, reasons),
    )
    cut[:, action[TABLE]] = counts > action[IDS]
    return reasons


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _convert_strings(
    text: int,
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    action: npt.NDArray[np.int64],
    characters: int,
    text_ends: int,
    groups: npt.NDArray[np.int64],
    columns: int,
    tables: int,
    first_id: int,
    stores_floats: bool,
    keeps_negative: bool,
    rows: int,
    keys: int,
    splits: int,
    cut: int,
    reasons: Reasons,
) -> None:
    target = action[TARGET]
    for row in range(len(begins)):
        reasons[row] = store_field(
            text + begins[row],
            text + ends[row],
            action[ACTION],
            action[SEPARATOR],
            action[IDS],
            characters,
            text_ends,
            groups[0],
            groups[1],
            groups[2],
            groups[3],
            stores_floats,
            keeps_negative,
            rows + 4 * (row * columns + target),
            keys + 8 * (row * (columns - first_id) + target - first_id),
            splits + row,
            cut + row * tables + action[TABLE],
        )


@numba.njit(nogil=True, cache=True)
@compiled_with("mlperf.data.columns", "mlperf.data.text")
def _convert_lists(
    text: int,
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    firsts: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    action: npt.NDArray[np.int64],
    characters: int,
    text_ends: int,
    groups: npt.NDArray[np.int64],
    columns: int,
    first_id: int,
    rows: int,
    keys: int,
    reasons: Reasons,
) -> None:
    target = action[TARGET]
    for row in range(len(firsts)):
        for place in range(min(counts[row], action[IDS])):
            begin, end = text + begins[firsts[row] + place], text + ends[firsts[row] + place]
            if not is_missing(begin, end, characters, text_ends, groups[0], groups[1]):
                reason, key = convert_id(begin, end, action[ACTION])
                reasons[row] = reason if reasons[row] == OK else reasons[row]
                store_int32(rows + 4 * (row * columns + target + place), np.int32(1))
                store_word(keys + 8 * (row * (columns - first_id) + target - first_id + place), key)
