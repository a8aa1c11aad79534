"""Group the ids of a batch by the row they read, table by table, on the CPU.

The first id that reads a row is the leader of its group; each id points to the next one of its group. Ids are
numbered by their position among the ids of their table: the j-th id of a sample's bag of h ids has the position
sample * h + j.

B samples, T tables, L ids. Table k has sizes[k] ids of each sample.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from mlperf.engines.cpu.loops.intrinsics import fetch_and_add, int32_array, int64_array, thread
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, arguments

NONE = -1  # marks the last id of a group

_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio


def slot_bits(positions: int) -> int:
    """Return the logarithm of the size of the hash table of a thread: at most half of it is in use.

    positions: ids of a batch of the table with the most of them.
    """
    return max(1, (2 * positions - 1).bit_length())


@arguments
class RowGroups(Arguments):
    """Arguments of `row_groups`."""

    ids: Address  # int64 [L], table by table, then sample by sample
    sizes: Address  # int64 [T], ids of a bag of each table
    before: Address  # int64 [T], ids of a sample in the tables before each table
    order: Address  # int64 [T], the tables in the order in which threads take them
    leaders: Address  # int32 [L], written: of each table, the ids that lead a group, in ascending order
    counts: Address  # int64 [T], written: the number of groups
    following: Address  # int32 [L], written: the next id of the group, or NONE
    slots: Address  # int32 [threads, 2 ** slot_bits], scratch memory
    next_table: Address  # int64 [1], the next table that no thread has taken
    tables: Integer  # T
    samples: Integer  # B
    slot_bits: Integer


def _row_groups(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    tables, samples = args.tables, args.samples
    counts, order = int64_array(args.counts, 1, tables), int64_array(args.order, 1, tables)
    sizes, before = int64_array(args.sizes, 1, tables), int64_array(args.before, 1, tables)
    own_slots = args.slots + 4 * (1 << args.slot_bits) * thread()
    while True:
        turn = fetch_and_add(args.next_table)
        if turn >= tables:
            break
        table = order[0, turn]
        positions, first = samples * sizes[0, table], samples * before[0, table]
        ids = int64_array(args.ids + 8 * first, 1, positions)
        leaders = int32_array(args.leaders + 4 * first, 1, positions)
        following = int32_array(args.following + 4 * first, 1, positions)
        bits = 1
        while 1 << bits < 2 * positions:
            bits += 1
        shift, mask = np.uint64(64 - bits), np.uint64((1 << bits) - 1)
        slots = int32_array(own_slots, 1, 1 << bits)  # the last id found of a group
        slots[0, :] = NONE
        count = 0
        for position in range(positions):
            row = ids[0, position]
            slot = (np.uint64(row) * _FIBONACCI) >> shift
            last = slots[0, slot]
            while last != NONE and ids[0, last] != row:
                slot = (slot + np.uint64(1)) & mask
                last = slots[0, slot]
            if last == NONE:
                leaders[0, count] = position
                count += 1
            else:
                following[0, last] = position
            following[0, position] = NONE
            slots[0, slot] = position
        counts[0, table] = count


@cache
def row_groups() -> ParallelLoop[RowGroups]:
    """Return the loop that groups the ids.

    A thread takes the next table when it is done with its last one. Each thread has its own hash table.
    """
    return ParallelLoop(_row_groups, RowGroups)
