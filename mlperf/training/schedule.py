"""The learning rate: linear warm-up, then polynomial decay of power 2."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_RATE = 1e-7


@dataclass(frozen=True)
class LearningRateSchedule:
    """Rates of steps 1, 2, ...: a function of the step alone, so that a continued run needs no state.

    Between warm-up and decay the rate stays where warm-up ended, one notch below the base rate, as runs with
    published results had it.
    """

    base: float
    warmup_steps: int = 0
    decay_start_step: int = 0
    decay_steps: int = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`, which counts from 1."""
        if step < self.warmup_steps:
            return self.base * step / self.warmup_steps
        if self.decay_steps == 0:
            return self.base
        if step < self.decay_start_step:
            return self.rate_after_warmup()
        left = max(self.decay_start_step + self.decay_steps - step, 1)
        return max(self.base * (left / self.decay_steps) ** 2, LEAST_RATE)

    def rate_after_warmup(self) -> float:
        """Return the rate between warm-up and decay (with a decay: without one it is the base rate)."""
        if self.warmup_steps > 1:
            return self.base * (self.warmup_steps - 1) / self.warmup_steps
        return self.base
