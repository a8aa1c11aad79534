"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes

# Parameters of mallopt (malloc.h of glibc).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 1 << 30  # bytes


def keep_freed_blocks() -> None:
    """Make the allocator keep freed blocks of up to 1 GB for later allocations, for the rest of the process.

    By default, glibc returns blocks of more than 32 MB to the system when they are freed. A loop that allocates
    such a block in each iteration then spends more time on page faults than on filling it. Does nothing with
    another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(parameter, _LARGEST_BLOCK)
