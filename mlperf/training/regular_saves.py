"""When the newest weights are saved: at intervals, and at the end of the training."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlperf.distributed.agreement import decided_by_first
from mlperf.evaluation.metrics import Metrics


class RegularSaves:
    """Saves every `minutes`, and remembers whether anything was trained since. save: writes the checkpoint.

    Every process must call the methods at the same positions; the clock of the first one counts.
    """

    def __init__(
        self, minutes: float, save: Callable[[Metrics], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = 60 * minutes
        self._save = save
        self._clock = clock
        self._last = clock()
        self._trained = False

    def step_stop(self) -> None:
        """Note that a batch was trained."""
        self._trained = True

    def is_due(self) -> bool:
        """Return whether the interval has passed since the last save, or since the start."""
        return self._trained and decided_by_first(lambda: self._clock() - self._last >= self._seconds)

    def save(self, metrics: Metrics) -> bool:
        """Save and return True, unless nothing was trained since then. metrics: of the last evaluation."""
        if not self._trained:
            return False
        self._save(metrics)
        self._trained = False
        self._last = self._clock()
        return True
