"""Numbers as people read them: ticks of an axis, durations, sizes."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_SMALLEST = 1e-300  # range of an axis with ticks


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of 10."""
    if not high - low > _SMALLEST:
        return [low]
    largest = 1.5 * (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(largest))
    step = max((factor * power for factor in (1, 2, 5) if factor * power <= largest), default=power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_labels(values: list[float]) -> list[str]:
    """Return the labels of the ticks of an axis, all with the same unit and number of decimals."""
    largest = max(map(abs, values), default=0.0)
    step = values[1] - values[0] if len(values) > 1 else largest or 1.0
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if largest >= 10 * factor:
            return [f"{_fixed(value / factor, step / factor)}{unit if value else ''}" for value in values]
    if 0 < largest < 1e-3:
        return [f"{value:.{_digits(largest, step)}e}" if value else "0" for value in values]
    return [_fixed(value, step) for value in values]


def _fixed(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value + 0.0:.{min(decimals, 12)}f}"


def _digits(largest: float, step: float) -> int:
    return max(0, math.floor(math.log10(largest)) - math.floor(math.log10(step) + 1e-9))


def duration(seconds: float | None) -> str | None:
    """Return a time with two units: "45.2 s", "3 min 20 s", "2 h 05 min"."""
    if seconds is None:
        return None
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def significant(value: float | None, digits: int = 3) -> str | None:
    """Return a number with `digits` digits and thousands separated: "12,300", "0.0123"."""
    if value is None:
        return None
    if value == 0 or not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):,.{decimals}f}"


def size(bytes_: float | None) -> str | None:
    """Return a number of bytes with a unit: "25.3 GB"."""
    if bytes_ is None:
        return None
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= factor:
            return f"{significant(bytes_ / factor)} {unit}"
    return f"{bytes_:.0f} bytes"


def date(seconds: float | None) -> str | None:
    """Return a time in seconds since 1970 in UTC: "2026-11-27 16:05 UTC"."""
    if seconds is None or not 0 <= seconds < 253_402_300_800:  # the year 10000
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
