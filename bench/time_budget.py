"""A limit on the time of a series of measurements, which names those left out."""

from __future__ import annotations

import math
import time


class TimeBudget:
    """Divides `minutes` from now on among measurements; None: no limit."""

    def __init__(self, minutes: float | None) -> None:
        self._end = math.inf if minutes is None else time.perf_counter() + 60 * minutes
        self._longest_preparation = 0.0
        self.left_out: list[str] = []

    @property
    def remaining(self) -> float:
        """Seconds left; infinite without a limit, negative after the end."""
        return self._end - time.perf_counter()

    def share(self, measurements_left: int) -> float:
        """Return the seconds of the next measurement if all that are left take equally long."""
        return self.remaining / measurements_left

    def note_preparation(self, seconds: float) -> None:
        """Record how long a measurement took before it could time anything."""
        self._longest_preparation = max(self._longest_preparation, seconds)

    def allows(self, name: str) -> bool:
        """Return whether a measurement can be prepared in the time left; otherwise add its name to `left_out`."""
        if self.remaining > self._longest_preparation:
            return True
        self.left_out.append(name)
        return False
