"""Clocks that continue evenly while the clock of the system is set."""

from __future__ import annotations

import time

# Linux counts the time of a suspended machine with this clock only.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class UnixClock:
    """Unix time that never runs backwards: the system's time is read once, and a steady clock from then on."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(_STEADY)

    def milliseconds(self) -> int:
        """Return whole milliseconds since 1970."""
        return (self._offset_ns + time.clock_gettime_ns(_STEADY)) // 1_000_000
