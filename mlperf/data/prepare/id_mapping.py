"""Map ids to rows of the embedding tables. The ids of each table are numbered in order of first appearance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import CRITEO, Rows
from mlperf.util.errors import RunError
from mlperf.util.threads import Threads

CRITEO.require_one_hot("the id mapping")

# A slot of a hash table holds an id in its upper 32 bits and 1 + the id's index in the lower 32 bits; 0 is free.
Slots = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.uint32]

MAX_SLOTS = 1 << 32  # half full, they hold 2^31 ids, as many as an int32 can index


class IdMapper:
    """A hash table for each embedding table: open addressing, at most half full, 16 to 32 bytes per distinct id.

    first_index: number of the first id of each table.
    initial_slots, max_slots: sizes of a hash table, powers of 2; it is doubled when half full.
    """

    grows = True

    def __init__(self, first_index: int = 0, *, initial_slots: int = 1 << 12, max_slots: int = MAX_SLOTS) -> None:
        self._first_index = first_index
        self._initial_slots = initial_slots
        self._max_slots = max_slots
        self._max_ids = max_slots // 2 - first_index
        self._slots: list[Slots] = [np.zeros(initial_slots, np.uint64) for _ in range(CRITEO.tables)]
        self._counts = [0] * CRITEO.tables

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of distinct ids of each table so far."""
        return tuple(self._counts)

    def map(self, rows: Rows, tables: Sequence[int], keys: Any = None) -> None:
        """Replace the ids of `tables` in `rows` by their numbers, in place.

        rows: int32 [N, columns]; an id is the bits of a uint32. keys: not used; see Mapper. Different threads may
        map different tables at the same time.
        """
        for table in tables:
            done = 0
            while True:
                max_count = min(self._max_ids, len(self._slots[table]) // 2)
                done, self._counts[table] = _map_ids(
                    rows,
                    CRITEO.first_id + table,
                    done,
                    self._slots[table],
                    self._counts[table],
                    max_count,
                    self._first_index,
                )
                if done == len(rows):
                    break
                self._resize(table, 2 * len(self._slots[table]))

    def new_ids(self, first: Sequence[int], pool: Threads) -> list[Ids]:
        """Return the ids of each table from index `first[table]` on, uint32, in order."""

        return list(pool.map(lambda table: self.ids(table, first[table]), range(CRITEO.tables)))

    def ids(self, table: int, start: int = 0) -> Ids:
        """Return the ids of a table from index `start` on, uint32, in order of their numbers."""
        ids = np.empty(self._counts[table] - start, np.uint32)
        if len(ids):
            _collect(self._slots[table], start, ids)
        return ids

    def restore(self, ids: Sequence[Sequence[Ids]], pool: Threads) -> None:
        """Replace the mapping by saved ids: for each table, the parts that `new_ids` returned, in order."""

        def insert(table: int) -> None:
            count = sum(len(part) for part in ids[table])
            slots = self._initial_slots
            while slots < 2 * count:
                slots *= 2
            self._slots[table] = np.zeros(slots, np.uint64)
            self._counts[table] = 0
            for part in ids[table]:
                _insert(self._slots[table], part, self._counts[table])
                self._counts[table] += len(part)

        list(pool.map(insert, range(CRITEO.tables)))

    def _resize(self, table: int, slots: int) -> None:
        if slots > self._max_slots:
            advice = "" if self._first_index else "; pass a smaller --max-ind-range"
            raise RunError(
                f"column {CRITEO.first_id + table + 1}: more than {self._max_ids} distinct ids do not fit "
                f"the int32 of the binary file{advice}"
            )
        larger = np.zeros(slots, np.uint64)
        _copy(self._slots[table], larger)
        self._slots[table] = larger


@numba.njit(nogil=True, cache=True, inline="always")
def _first_slot(key: np.uint64, mask: int) -> int:
    """Return the first slot to probe. Multiplicative hashing; uses the high bits, which are best mixed."""
    return int((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & mask


@numba.njit("(int32[:, ::1], int64, int64, uint64[::1], int64, int64, int64)", nogil=True, cache=True)
def _map_ids(
    rows: Rows, column: int, first_row: int, slots: Slots, count: int, max_count: int, first_index: int
) -> tuple[int, int]:
    """Map a column from `first_row` on until there are `max_count` ids; return the rows done and the ids."""
    mask = len(slots) - 1
    shift = first_index - 1
    for row in range(first_row, len(rows)):
        key = np.uint64(np.uint32(rows[row, column]))
        slot = _first_slot(key, mask)
        while slots[slot] != 0 and slots[slot] >> np.uint64(32) != key:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            if count == max_count:
                return row, count
            count += 1
            slots[slot] = (key << np.uint64(32)) | np.uint64(count)
        rows[row, column] = np.int32(np.int64(slots[slot] & np.uint64(0xFFFFFFFF)) + shift)
    return len(rows), count


@numba.njit("(uint64[::1], uint64[::1])", nogil=True, cache=True)
def _copy(old: Slots, new: Slots) -> None:
    """Insert all ids of a hash table, with their indices, into a larger one."""
    mask = len(new) - 1
    for content in old:
        if content != 0:
            slot = _first_slot(content >> np.uint64(32), mask)
            while new[slot] != 0:
                slot = (slot + 1) & mask
            new[slot] = content


@numba.njit("(uint64[::1], int64, uint32[::1])", nogil=True, cache=True)
def _collect(slots: Slots, first: int, ids: Ids) -> None:
    """Fill `ids` with the ids of the indices `first`, `first` + 1, ..."""
    for content in slots:
        index = np.int64(content & np.uint64(0xFFFFFFFF)) - 1
        if index >= first:
            ids[index - first] = content >> np.uint64(32)


@numba.njit("(uint64[::1], uint32[::1], int64)", nogil=True, cache=True)
def _insert(slots: Slots, ids: Ids, count: int) -> None:
    """Insert new ids, whose indices are `count`, `count` + 1, ..."""
    mask = len(slots) - 1
    for key in ids:
        slot = _first_slot(np.uint64(key), mask)
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        count += 1
        slots[slot] = (np.uint64(key) << np.uint64(32)) | np.uint64(count)
