"""Hash table that numbers the 64-bit keys of a column, or looks their numbers up."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from mlperf.data.schema import Keys, Rows

# A slot holds a key and 1 + the index of the key, in order of first appearance; an index of 0: the slot is free.
Slots = npt.NDArray[np.uint64]  # [slots, 2]


BYTES_PER_KEY = 32  # at least: two slots of 16 bytes


class KeyTable:
    """Open addressing, at most half full: 32 to 64 bytes for each key. count: number of keys.

    initial_slots: first size of the table, a power of 2; it is doubled when half full.
    """

    def __init__(self, initial_slots: int = 1 << 12) -> None:
        self.count = 0
        self._slots: Slots = np.zeros((initial_slots, 2), np.uint64)

    def map(self, rows: Rows, column: int, keys: Keys, first: int, ids: int, shift: int, max_keys: int) -> bool:
        """Number the keys of a column and write the numbers to `rows`; return False if there are too many keys.

        rows: int32 [N, columns], the ids in columns from `column` to `column` + `ids`; where it is 0, there is no
            key, and 0 stays. keys: uint64 [N, ids per row], those of the column from `first` on.
        shift: number of the first key. max_keys: number of keys that are allowed.
        """
        done = 0
        while True:
            limit = min(max_keys, len(self._slots) // 2)
            done, self.count = _map(rows, column, keys, first, ids, done, self._slots, self.count, limit, shift)
            if done == len(rows) * ids:
                return True
            if limit == max_keys:
                return False
            self._resize(2 * len(self._slots))

    def find(self, rows: Rows, column: int, keys: Keys, first: int, ids: int, shift: int, unknown: int) -> int:
        """Write the numbers of known keys to `rows` as `map` does, and `unknown` for others; return how many."""
        return int(_find(rows, column, keys, first, ids, self._slots, shift, unknown))

    def number(self, key: np.uint64) -> int | None:
        """Return the index of a key; None if it is not in the table."""
        row, keys = np.ones((1, 1), np.int32), np.full((1, 1), key)
        return None if self.find(row, 0, keys, 0, 1, 0, -1) else int(row[0, 0])

    def insert(self, keys: Keys) -> None:
        """Add new keys, uint64 [N], all different from each other and from those in the table."""
        slots = len(self._slots)
        while slots < 2 * (self.count + len(keys)):
            slots *= 2
        if slots > len(self._slots):
            self._resize(slots)
        _insert(self._slots, keys, self.count)
        self.count += len(keys)

    def keys(self, start: int = 0) -> Keys:
        """Return the keys from index `start` on, uint64, in order of their numbers."""
        keys = np.empty(self.count - start, np.uint64)
        if len(keys):
            _collect(self._slots, start, keys)
        return keys

    def _resize(self, slots: int) -> None:
        larger = np.zeros((slots, 2), np.uint64)
        _copy(self._slots, larger)
        self._slots = larger


@numba.njit(nogil=True, cache=True, inline="always")
def _first_slot(key: np.uint64, mask: int) -> int:
    """Return the first slot to probe: the high bits of a product, into which all bits of the key are mixed."""
    mixed = (key ^ (key >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return int(mixed >> np.uint64(24)) & mask


@numba.njit(
    "(int32[:, ::1], int64, uint64[:, ::1], int64, int64, int64, uint64[:, ::1], int64, int64, int64)",
    nogil=True,
    cache=True,
)
def _map(
    rows: Rows,
    column: int,
    keys: Keys,
    first: int,
    ids: int,
    done: int,
    slots: Slots,
    count: int,
    limit: int,
    shift: int,
) -> tuple[int, int]:
    """Number from position `done` on until there are `limit` keys; return the position and the number of keys."""
    mask = len(slots) - 1
    for position in range(done, len(rows) * ids):
        row, each = divmod(position, ids) if ids > 1 else (position, 0)
        if rows[row, column + each] == 0:
            continue
        key = keys[row, first + each]
        slot = _first_slot(key, mask)
        while slots[slot, 1] != 0 and slots[slot, 0] != key:
            slot = (slot + 1) & mask
        if slots[slot, 1] == 0:
            if count >= limit:
                return position, count
            count += 1
            slots[slot, 0], slots[slot, 1] = key, np.uint64(count)
        rows[row, column + each] = np.int32(np.int64(slots[slot, 1]) - 1 + shift)
    return len(rows) * ids, count


@numba.njit(
    "(int32[:, ::1], int64, uint64[:, ::1], int64, int64, uint64[:, ::1], int64, int64)", nogil=True, cache=True
)
def _find(
    rows: Rows, column: int, keys: Keys, first: int, ids: int, slots: Slots, shift: int, unknown: int
) -> int:
    mask = len(slots) - 1
    missing = 0
    for row in range(len(rows)):
        for each in range(ids):
            if rows[row, column + each] == 0:
                continue
            key = keys[row, first + each]
            slot = _first_slot(key, mask)
            while slots[slot, 1] != 0 and slots[slot, 0] != key:
                slot = (slot + 1) & mask
            if slots[slot, 1] == 0:
                rows[row, column + each] = unknown
                missing += 1
            else:
                rows[row, column + each] = np.int32(np.int64(slots[slot, 1]) - 1 + shift)
    return missing


@numba.njit("(uint64[:, ::1], uint64[:, ::1])", nogil=True, cache=True)
def _copy(old: Slots, new: Slots) -> None:
    """Insert all keys of a table, with their indices, into a larger one."""
    mask = len(new) - 1
    for entry in range(len(old)):
        if old[entry, 1] != 0:
            slot = _first_slot(old[entry, 0], mask)
            while new[slot, 1] != 0:
                slot = (slot + 1) & mask
            new[slot, 0], new[slot, 1] = old[entry, 0], old[entry, 1]


@numba.njit("(uint64[:, ::1], int64, uint64[::1])", nogil=True, cache=True)
def _collect(slots: Slots, start: int, keys: Keys) -> None:
    for entry in range(len(slots)):
        index = np.int64(slots[entry, 1]) - 1
        if index >= start:
            keys[index - start] = slots[entry, 0]


@numba.njit("(uint64[:, ::1], uint64[::1], int64)", nogil=True, cache=True)
def _insert(slots: Slots, keys: Keys, count: int) -> None:
    mask = len(slots) - 1
    for key in keys:
        slot = _first_slot(key, mask)
        while slots[slot, 1] != 0:
            slot = (slot + 1) & mask
        count += 1
        slots[slot, 0], slots[slot, 1] = key, np.uint64(count)
