"""Ids to table rows: each column's ids are numbered in order of first appearance."""

from __future__ import annotations

from concurrent.futures import Executor

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.parse import Rows
from mlperf.data.criteo.row_format import FIRST_ID, TABLES

# A slot holds an id in its upper half and 1 + its number in the lower; 0 is free.
Slots = npt.NDArray[np.uint64]

_FIRST_CAPACITY = 1 << 12


class Numbering:
    """One hash table per column, open addressing, at most half full. Memory: 16 to 32 bytes a distinct id."""

    def __init__(self) -> None:
        self._slots: list[Slots] = [np.zeros(_FIRST_CAPACITY, np.uint64) for _ in range(TABLES)]
        self._counts = [0] * TABLES

    @property
    def counts(self) -> tuple[int, ...]:
        """Distinct ids so far, per column."""
        return tuple(self._counts)

    def number(self, rows: Rows, pool: Executor) -> None:
        """Replace the ids (bits of uint32) of `rows`, int32 [N, 40], by their numbers, in place."""
        list(pool.map(lambda table: self._number_column(rows, table), range(TABLES)))

    def _number_column(self, rows: Rows, table: int) -> None:
        done = 0
        while True:
            done, self._counts[table] = _number(
                rows, FIRST_ID + table, done, self._slots[table], self._counts[table]
            )
            if done == len(rows):
                return
            larger = np.zeros(2 * len(self._slots[table]), np.uint64)
            _move(self._slots[table], larger)
            self._slots[table] = larger


@numba.njit(nogil=True, cache=True, inline="always")
def _first_slot(key: np.uint64, mask: int) -> int:
    """Multiplicative hashing: the high bits of the product are the well mixed ones."""
    return int((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & mask


@numba.njit(nogil=True, cache=True)
def _number(rows: Rows, column: int, first: int, slots: Slots, count: int) -> tuple[int, int]:
    """Number the ids of rows `first` on; return the rows done and the distinct ids. Stops when half full."""
    mask = len(slots) - 1
    room = len(slots) // 2
    for row in range(first, len(rows)):
        key = np.uint64(np.uint32(rows[row, column]))
        slot = _first_slot(key, mask)
        while slots[slot] != 0 and slots[slot] >> np.uint64(32) != key:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            if count == room:
                return row, count
            count += 1
            slots[slot] = (key << np.uint64(32)) | np.uint64(count)
        rows[row, column] = np.int32(np.int64(slots[slot] & np.uint64(0xFFFFFFFF)) - 1)
    return len(rows), count


@numba.njit(nogil=True, cache=True)
def _move(old: Slots, new: Slots) -> None:
    mask = len(new) - 1
    for content in old:
        if content != 0:
            slot = _first_slot(content >> np.uint64(32), mask)
            while new[slot] != 0:
                slot = (slot + 1) & mask
            new[slot] = content
