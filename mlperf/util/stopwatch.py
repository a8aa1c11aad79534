"""Divide the wall time of a run among named parts.

At each moment exactly one part runs, so that the parts add up to the whole. Parts are nested: the time of a part
does not include that of the parts within it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

OTHER = "other"


class Stopwatch:
    """Measures the parts of each phase of a run. A phase has parts of its own, which may have equal names.

    clock: returns nanoseconds; it must not run backwards.

    Time before `start` is not counted. Outside of all parts, the time belongs to the part `OTHER` of the phase or,
    outside of all phases, of the phase `OTHER`.
    """

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._phases: dict[str, defaultdict[str, int]] = {}
        self._open_phases: list[str] = []
        self._parts: list[str] = []
        self.start()

    def start(self) -> None:
        """Start anew."""
        self._phases = {OTHER: defaultdict(int)}
        self._open_phases, self._parts = [OTHER], [OTHER]
        self._times = self._phases[OTHER]
        self._since = self._clock()

    def begin(self, part: str) -> None:
        """Begin a part."""
        self._count()
        self._parts.append(part)

    def end(self) -> None:
        """End the part that began last; the one around it goes on."""
        self._count()
        self._parts.pop()

    def switch(self, part: str) -> None:
        """End the part that began last, and begin another in its place."""
        self._count()
        self._parts[-1] = part

    def _count(self) -> None:
        """Add the time since the last call to the part that runs."""
        now = self._clock()
        self._times[self._parts[-1]] += now - self._since
        self._since = now

    @contextmanager
    def phase(self, name: str, rest: str = OTHER) -> Iterator[None]:
        """Context of a phase. rest: the part to which the time belongs outside of all others."""
        self.begin_phase(name, rest)
        try:
            yield
        finally:
            self.end_phase()

    def begin_phase(self, name: str, rest: str = OTHER) -> None:
        """Begin a phase; the one around it stands still until `end_phase`."""
        self._count()
        self._parts.append(rest)
        self._open_phases.append(name)
        self._times = self._phases.setdefault(name, defaultdict(int))

    def end_phase(self) -> None:
        """End the phase that began last."""
        self._count()
        self._parts.pop()
        self._open_phases.pop()
        self._times = self._phases[self._open_phases[-1]]

    def seconds(self) -> Mapping[str, Mapping[str, float]]:
        """Return the seconds of each part of each phase since `start`, in the order in which they first ended."""
        self._count()
        return {
            phase: {part: nanoseconds / 1e9 for part, nanoseconds in times.items()}
            for phase, times in self._phases.items()
        }
