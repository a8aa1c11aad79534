"""The time of a run divided among its parts, on the host and on a GPU."""

from __future__ import annotations

import pytest

from mlperf.engines.device_stopwatch import DeviceStopwatch
from mlperf.engines.observer import READING
from mlperf.util.stopwatch import OTHER, Stopwatch

SECOND = 1_000_000_000


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> int:
        return self.seconds * SECOND


def test_time_belongs_to_the_innermost_part() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    clock.seconds = 1
    watch.begin("outer")
    clock.seconds = 3
    watch.begin("inner")
    clock.seconds = 7
    watch.end()
    clock.seconds = 15
    watch.end()
    clock.seconds = 31
    assert watch.seconds() == {OTHER: {OTHER: 1 + 16, "outer": 2 + 8, "inner": 4}}


def test_part_can_be_switched() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    watch.begin("first")
    clock.seconds = 1
    watch.switch("second")
    clock.seconds = 3
    watch.end()
    assert watch.seconds()[OTHER] == {OTHER: 0, "first": 1, "second": 2}


def test_phases_have_parts_of_their_own() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    watch.begin_phase("training")
    watch.begin("reading")
    clock.seconds = 1
    watch.end()
    with watch.phase("evaluation", "metrics"):
        clock.seconds = 3
        watch.begin("reading")
        clock.seconds = 7
        watch.end()
        clock.seconds = 15
    clock.seconds = 31
    watch.end_phase()
    assert watch.seconds() == {
        OTHER: {OTHER: 0},
        "training": {OTHER: 16, "reading": 1},
        "evaluation": {"metrics": 2 + 8, "reading": 4},
    }


def test_time_before_the_start_is_not_counted() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    watch.begin("warm-up")
    clock.seconds = 5
    watch.start()
    clock.seconds = 6
    assert watch.seconds() == {OTHER: {OTHER: 1}}


class Gpu:
    """A GPU that works off what it is given: each piece of work takes some milliseconds."""

    def __init__(self) -> None:
        self.given = 0.0  # milliseconds of work
        self.done = 0.0

    def event(self) -> Moment:
        return Moment(self)

    def work(self, milliseconds: float) -> None:
        self.given += milliseconds

    def finish(self) -> None:
        self.done = self.given


class Moment:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.at = -1.0

    def record(self) -> None:
        self.at = self.gpu.given

    def query(self) -> bool:
        return self.gpu.done >= self.at

    def elapsed_time(self, end: Moment, /) -> float:
        assert self.query()
        assert end.query()
        return end.at - self.at


def step(watch: DeviceStopwatch, gpu: Gpu, milliseconds: float) -> bool:
    """Give the GPU the work of a step. Return whether it is measured."""
    watch.begin(READING)
    watch.end()
    watch.begin("top MLP")
    gpu.work(milliseconds)
    watch.end()
    gpu.work(1)
    return watch.measures


def test_parts_are_measured_on_the_gpu_in_some_steps() -> None:
    gpu = Gpu()
    watch = DeviceStopwatch(gpu.event, gpu.finish, every=3)
    watch.begin_phase("training")
    measured = []
    for number in range(7):
        measured.append(step(watch, gpu, 3 if number % 3 == 0 else 1000))
        gpu.finish()
    watch.end_phase()
    assert measured == [True, False, False, True, False, False, True]
    parts = watch.seconds()["training"]
    assert parts["top MLP"] / sum(parts.values()) == pytest.approx(3 / 4)
    assert parts[OTHER] / sum(parts.values()) == pytest.approx(1 / 4)


def test_step_is_not_measured_before_the_gpu_has_passed_the_last_one() -> None:
    gpu = Gpu()
    watch = DeviceStopwatch(gpu.event, gpu.finish, every=1)
    watch.begin_phase("training")
    assert step(watch, gpu, 1)
    assert not step(watch, gpu, 1)  # nothing is finished: its events are still needed
    assert not step(watch, gpu, 1)
    gpu.finish()
    assert step(watch, gpu, 1)


def test_parts_on_the_gpu_add_up_to_the_wall_time() -> None:
    gpu = Gpu()
    watch = DeviceStopwatch(gpu.event, gpu.finish, every=1)
    watch.begin_phase("training")
    step(watch, gpu, 5)
    gpu.finish()
    with watch.phase("evaluation", "metrics"):
        watch.begin(READING)
        watch.end()
        gpu.work(2)
        gpu.finish()
    with watch.phase("checkpoints"):
        pass
    watch.end_phase()
    found = watch.seconds()
    assert set(found) == {OTHER, "training", "evaluation", "checkpoints"}
    assert set(found["evaluation"]) == {READING, "metrics"}
    host = Stopwatch.seconds(watch)
    for phase, parts in found.items():
        assert sum(parts.values()) == pytest.approx(sum(host[phase].values()), abs=1e-3)


def test_parts_of_a_captured_step_are_those_of_its_replay() -> None:
    gpu = Gpu()
    watch = DeviceStopwatch(gpu.event, gpu.finish, every=1)
    events: list[Moment] = []
    with watch.captured() as marks:
        watch.begin("top MLP")
        watch.end()
    for _, event in marks:
        assert isinstance(event, Moment)
        events.append(event)
    watch.begin_phase("training")
    watch.begin(READING)
    watch.end()
    for event, milliseconds in zip(events, (6, 0), strict=True):  # the graph records its events again
        event.record()
        gpu.work(milliseconds)
    watch.replayed(marks)
    gpu.work(2)
    gpu.finish()
    watch.end_phase()
    parts = watch.seconds()["training"]
    assert parts["top MLP"] / sum(parts.values()) == pytest.approx(6 / 8)
