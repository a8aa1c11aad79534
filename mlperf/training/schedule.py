"""Learning rate schedule: linear warm-up, then polynomial decay of power 2."""

from __future__ import annotations

from mlperf.settings.training import ScheduleSettings

MIN_RATE = 1e-7


def learning_rate(schedule: ScheduleSettings, step: int) -> float:
    """Return the learning rate of optimizer step `step`, which counts from 1.

    It depends only on the step, so resuming a run needs no state. Between warm-up and decay it stays at the rate
    of the last warm-up step, slightly below the base rate, as in the original implementation.
    """
    base = schedule.learning_rate
    if step < schedule.warmup_steps:
        return base * step / schedule.warmup_steps
    if schedule.decay_steps == 0:
        return base
    if step < schedule.decay_start_step:
        return _rate_after_warmup(schedule)
    steps_left = max(schedule.decay_start_step + schedule.decay_steps - step, 1)
    return max(base * (steps_left / schedule.decay_steps) ** 2, MIN_RATE)


def unreached_steps(schedule: ScheduleSettings, steps: int) -> str | None:
    """Describe the part of the schedule after the last of `steps` optimizer steps; None if there is none."""
    if schedule.warmup_steps > steps:
        return f"--lr-num-warmup-steps={schedule.warmup_steps} is longer than the {steps} steps of this run"
    if schedule.decay_steps > 0 and schedule.decay_start_step > steps:
        return f"--lr-decay-start-step={schedule.decay_start_step} is after the {steps} steps of this run"
    return None


def _rate_after_warmup(schedule: ScheduleSettings) -> float:
    if schedule.warmup_steps > 1:
        return schedule.learning_rate * (schedule.warmup_steps - 1) / schedule.warmup_steps
    return schedule.learning_rate
