"""Group the samples of a batch by the row they read, table by table, on the CPU.

The first sample that reads a row is the leader of its group; each sample points to the next one of its group.

B samples, T tables.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from mlperf.engines.cpu.loops.intrinsics import int32_array, int64_array, share, thread
from mlperf.engines.cpu.loops.parallel import Address, Arguments, Integer, ParallelLoop, arguments

NONE = -1  # marks the last sample of a group

_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio


def slot_bits(samples: int) -> int:
    """Return the logarithm of the size of the hash table of a thread: at most half of it is in use."""
    return max(1, (2 * samples - 1).bit_length())


@arguments
class RowGroups(Arguments):
    """Arguments of `row_groups`."""

    ids: Address  # int64 [T, B]
    leaders: Address  # int32 [T, B], written: the samples that lead a group, in ascending order
    counts: Address  # int64 [T], written: the number of groups
    following: Address  # int32 [T, B], written: the next sample of the group, or NONE
    slots: Address  # int32 [threads, 2 ** slot_bits], scratch memory
    next_chunk: Address  # int64 [1], set to 0 for the loop that updates the rows
    tables: Integer  # T
    samples: Integer  # B
    slot_bits: Integer


def _row_groups(pointer: Any) -> None:
    args = carray(pointer, 1)[0]
    tables, samples = args.tables, args.samples
    ids, following = int64_array(args.ids, tables, samples), int32_array(args.following, tables, samples)
    leaders, counts = int32_array(args.leaders, tables, samples), int64_array(args.counts, 1, tables)
    size = 1 << args.slot_bits
    shift, mask = np.uint64(64 - args.slot_bits), np.uint64(size - 1)
    slots = int32_array(args.slots + 4 * size * thread(), 1, size)  # the last sample found of a group
    start, stop = share(tables)
    if start == 0:
        int64_array(args.next_chunk, 1, 1)[0, 0] = 0
    for table in range(start, stop):
        slots[0, :] = NONE
        count = 0
        for sample in range(samples):
            row = ids[table, sample]
            slot = (np.uint64(row) * _FIBONACCI) >> shift
            last = slots[0, slot]
            while last != NONE and ids[table, last] != row:
                slot = (slot + np.uint64(1)) & mask
                last = slots[0, slot]
            if last == NONE:
                leaders[table, count] = sample
                count += 1
            else:
                following[table, last] = sample
            following[table, sample] = NONE
            slots[0, slot] = sample
        counts[0, table] = count


@cache
def row_groups() -> ParallelLoop[RowGroups]:
    """Return the loop that groups the samples. Each thread has its own tables and its own hash table."""
    return ParallelLoop(_row_groups, RowGroups)
