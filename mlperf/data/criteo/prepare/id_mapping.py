"""Ids to table rows: each column's ids are numbered in order of first appearance."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.criteo.prepare.parse import Rows
from mlperf.data.schema import FIRST_ID, TABLES
from mlperf.util.errors import RunError

# A slot holds an id in its upper half and 1 + its number in the lower; 0 is free.
Slots = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.uint32]

_FIRST_CAPACITY = 1 << 12
_MOST_SLOTS = 1 << 32  # half full they number 2^31 ids, as many as an int32 can tell apart


class IdMapper:
    """One hash table per column, open addressing, at most half full. Memory: 16 to 32 bytes a distinct id."""

    def __init__(self) -> None:
        self._slots: list[Slots] = [np.zeros(_FIRST_CAPACITY, np.uint64) for _ in range(TABLES)]
        self._counts = [0] * TABLES

    @property
    def counts(self) -> tuple[int, ...]:
        """Distinct ids so far, per column."""
        return tuple(self._counts)

    def number(self, rows: Rows, tables: Sequence[int]) -> None:
        """Replace the ids (bits of uint32) of `tables` in `rows`, int32 [N, 40], by their numbers, in place.

        Different tables may be numbered by different threads at the same time.
        """
        for table in tables:
            done = 0
            while True:
                done, self._counts[table] = _number(
                    rows, FIRST_ID + table, done, self._slots[table], self._counts[table]
                )
                if done == len(rows):
                    break
                self._resize(table, 2 * len(self._slots[table]))

    def new_ids(self, first: Sequence[int], pool: Executor) -> list[Ids]:
        """Return each column's ids from number `first` on, in order."""

        def collect(table: int) -> Ids:
            ids = np.empty(self._counts[table] - first[table], np.uint32)
            if len(ids):
                _collect(self._slots[table], first[table], ids)
            return ids

        return list(pool.map(collect, range(TABLES)))

    def restore(self, ids: Sequence[Sequence[Ids]], pool: Executor) -> None:
        """Number ids that new_ids returned: of each column its parts, in order. Everything else is forgotten."""

        def insert(table: int) -> None:
            count = sum(len(part) for part in ids[table])
            self._counts[table] = 0
            self._slots[table] = np.zeros(_FIRST_CAPACITY, np.uint64)
            while len(self._slots[table]) < 2 * count:
                self._slots[table] = np.zeros(2 * len(self._slots[table]), np.uint64)
            for part in ids[table]:
                _insert(self._slots[table], part, self._counts[table])
                self._counts[table] += len(part)

        list(pool.map(insert, range(TABLES)))

    def _resize(self, table: int, capacity: int) -> None:
        if capacity > _MOST_SLOTS:
            raise RunError(
                f"column {FIRST_ID + table + 1}: more than {_MOST_SLOTS // 2} distinct ids, which the binary file "
                "cannot number; a smaller --max-ind-range joins ids"
            )
        larger = np.zeros(capacity, np.uint64)
        _move(self._slots[table], larger)
        self._slots[table] = larger


@numba.njit(nogil=True, cache=True, inline="always")
def _first_slot(key: np.uint64, mask: int) -> int:
    """Multiplicative hashing: the high bits of the product are the well mixed ones."""
    return int((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & mask


@numba.njit("(int32[:, ::1], int64, int64, uint64[::1], int64)", nogil=True, cache=True)
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


@numba.njit("(uint64[::1], uint64[::1])", nogil=True, cache=True)
def _move(old: Slots, new: Slots) -> None:
    mask = len(new) - 1
    for content in old:
        if content != 0:
            slot = _first_slot(content >> np.uint64(32), mask)
            while new[slot] != 0:
                slot = (slot + 1) & mask
            new[slot] = content


@numba.njit("(uint64[::1], int64, uint32[::1])", nogil=True, cache=True)
def _collect(slots: Slots, first: int, ids: Ids) -> None:
    for content in slots:
        number = np.int64(content & np.uint64(0xFFFFFFFF)) - 1
        if number >= first:
            ids[number - first] = content >> np.uint64(32)


@numba.njit("(uint64[::1], uint32[::1], int64)", nogil=True, cache=True)
def _insert(slots: Slots, ids: Ids, count: int) -> None:
    mask = len(slots) - 1
    for key in ids:
        slot = _first_slot(np.uint64(key), mask)
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        count += 1
        slots[slot] = (np.uint64(key) << np.uint64(32)) | np.uint64(count)
