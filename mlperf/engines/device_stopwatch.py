"""Stopwatch of a run on a GPU, which works behind the host: the parts of a step are measured by events on the GPU.

An event costs time, also within a CUDA graph, and can be read only when the GPU has passed it. So only some of the
steps are measured, and the time of a phase is divided among its parts as that of these steps is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch

from mlperf.engines.observer import READING
from mlperf.util.stopwatch import OTHER, Stopwatch

# One of this many steps is measured. A prime, so that it is not always or never one with a progress report.
_EVERY = 13


class Event(Protocol):
    """A moment in the work of a GPU, such as a torch.cuda.Event."""

    def record(self) -> None:
        """Note the moment at which the GPU has done the work that it was given so far."""
        ...

    def query(self) -> bool:
        """Return whether the GPU has passed the moment."""
        ...

    def elapsed_time(self, end: Any, /) -> float:
        """Return the milliseconds until another event, which the GPU has passed too."""
        ...


# The parts that begin with an event, in order: each lasts until the next event.
Marks = list[tuple[str, Event]]


class DeviceStopwatch(Stopwatch):
    """Measures the phases on the host and the parts on the GPU.

    A step begins when `READING` does, and lasts until the next begins: waiting for a batch delays the GPU only if
    it has nothing else to do. A phase begins and ends when the GPU has no work left: the host waits for that.

    make_event: returns a new event. synchronize: waits for the GPU. every: one of this many steps is
    measured, the first one among them.
    """

    def __init__(
        self, make_event: Callable[[], Event], synchronize: Callable[[], None], every: int = _EVERY
    ) -> None:
        self._make_event = make_event
        self._synchronize = synchronize
        self._every = every
        self._measured: dict[str, defaultdict[str, float]] = {}
        self._marks: Marks | None = None  # of the step that is measured
        self._ended: list[tuple[str, Marks]] = []  # phase and marks of steps that the GPU may not have passed
        self._steps = 0
        super().__init__()

    def start(self) -> None:
        """Start anew."""
        super().start()
        self._measured, self._marks, self._ended, self._steps = {}, None, [], 0

    @property
    def measures(self) -> bool:
        """Whether the step that runs is one of those that are measured."""
        return self._marks is not None

    def begin(self, part: str) -> None:
        """Begin a part."""
        if part == READING and len(self._open_phases) > 1:
            self._next_step()
        self._parts.append(part)
        self._mark()

    def end(self) -> None:
        """End the part that began last; the one around it goes on."""
        self._parts.pop()
        self._mark()

    def switch(self, part: str) -> None:
        """End the part that began last, and begin another in its place."""
        self._parts[-1] = part
        self._mark()

    def begin_phase(self, name: str, rest: str = OTHER) -> None:
        """Begin a phase, once the GPU has no work left."""
        self._end_step()
        self._synchronize()
        super().begin_phase(name, rest)

    def end_phase(self) -> None:
        """End the phase that began last, once the GPU has no work left."""
        self._end_step()
        self._synchronize()
        super().end_phase()

    @contextmanager
    def captured(self) -> Iterator[Marks]:
        """Context in which a step is captured as a graph: returns the marks that `replayed` takes."""
        before, self._marks = self._marks, []
        try:
            yield self._marks
        finally:
            self._marks = before

    def replayed(self, marks: Marks) -> None:
        """Take the marks of a captured step that was replayed just now."""
        if self._marks is not None:
            self._marks += marks
            self._mark()

    def seconds(self) -> Mapping[str, Mapping[str, float]]:
        """Return the seconds of each part of each phase since `start`.

        Steps that the GPU has not finished are left out where the time of a phase is divided.
        """
        self._end_step()
        self._read()
        totals = {phase: sum(parts.values()) for phase, parts in super().seconds().items()}
        return {phase: self._divided(phase, total) for phase, total in totals.items()}

    def _divided(self, phase: str, total: float) -> Mapping[str, float]:
        measured: Mapping[str, float] = self._measured.get(phase, {})
        whole = sum(measured.values())
        if not whole:
            return {OTHER: total}
        return {part: total * milliseconds / whole for part, milliseconds in measured.items()}

    def _next_step(self) -> None:
        """End the step, and measure the next one if it is its turn and the events of the last one are free."""
        self._end_step()
        self._read()
        if self._steps % self._every == 0 and not self._ended:
            self._marks = []
        self._steps += 1

    def _end_step(self) -> None:
        if self._marks:
            self._mark()
            self._ended.append((self._open_phases[-1], self._marks))
        self._marks = None

    def _mark(self) -> None:
        if self._marks is not None:
            event = self._make_event()
            event.record()
            self._marks.append((self._parts[-1], event))

    def _read(self) -> None:
        """Add the times of the steps that the GPU has passed."""
        while self._ended and self._ended[0][1][-1][1].query():
            phase, marks = self._ended.pop(0)
            times = self._measured.setdefault(phase, defaultdict(float))
            for (part, event), (_, following) in pairwise(marks):
                times[part] += event.elapsed_time(following)


def make_stopwatch(device: torch.device) -> Stopwatch:
    """Return the stopwatch of a run on `device`."""
    if device.type == "cpu":
        return Stopwatch()
    # External: within a graph, the event is recorded anew each time that the graph is replayed.
    return DeviceStopwatch(
        partial(torch.cuda.Event, enable_timing=True, external=True), partial(torch.cuda.synchronize, device)
    )
