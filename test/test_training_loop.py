"""The training loop: steps, reports, evaluations, saving and stopping."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlperf.engines.protocol import LossSums
from mlperf.evaluation.metrics import Metrics
from mlperf.settings.training import ScheduleSettings, TrainingSettings
from mlperf.training.events import Listener, Outcome, Position, Progress
from mlperf.training.loop import TrainingLoop
from mlperf.training.regular_saves import RegularSaves
from mlperf.training.state import TrainingState
from mlperf.training.stopping import target_reached
from mlperf.util.errors import DivergedError


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0


class RecordingStep:
    """An engine that trains nothing: it keeps the learning rates. Each sample adds `loss`; half are correct.

    A batch takes 20 ms of `clock`.
    """

    def __init__(self, clock: Clock | None = None, loss: float = 0.25) -> None:
        self.device = torch.device("cpu")
        self.sums = LossSums.zeros(self.device)
        self.rates: list[float | None] = []
        self.epochs: list[int] = []
        self.clock = clock or Clock()
        self.loss = loss

    def training_batches(self, data: Any, epoch: int, first: int = 0) -> Iterator[Any]:
        self.epochs.append(epoch)
        return itertools.islice(data.batches(epoch), first, None)

    def train(self, batch: Any, rate: float | None) -> None:
        self.clock.seconds += 0.02
        self.rates.append(rate)
        self.sums.loss.add_(self.loss * batch.size)
        self.sums.correct.add_(batch.size / 2)

    def check(self) -> None: ...


class RecordingListener(Listener):
    """Keeps the events of a run, with their positions."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.reports: list[tuple[float, float]] = []
        self.milliseconds: list[float] = []
        self.evaluations: list[tuple[Metrics, Metrics, bool]] = []

    def _add(self, event: str, position: Position) -> None:
        self.events.append((event, position.epoch, position.iteration))

    def of(self, event: str) -> list[tuple[int, int]]:
        """Return the epoch and the iteration of each event of this name."""
        return [(epoch, iteration) for name, epoch, iteration in self.events if name == event]

    def epoch_start(self, position: Position) -> None:
        self._add("epoch_start", position)

    def step_stop(self, position: Position) -> None:
        self._add("step_stop", position)

    def progress(self, position: Position, progress: Progress) -> None:
        self._add("progress", position)
        self.reports.append((progress.loss, progress.accuracy))
        self.milliseconds.append(progress.ms_per_iteration)

    def evaluation_start(self, position: Position) -> None:
        self._add("evaluation_start", position)

    def evaluation_stop(self, position: Position, metrics: Metrics, best: Metrics, improved: bool) -> None:
        self._add("evaluation_stop", position)
        self.evaluations.append((metrics, best, improved))

    def epoch_stop(self, position: Position) -> None:
        self._add("epoch_stop", position)


def metrics(accuracy: float, auc: float = math.nan) -> Metrics:
    return Metrics(accuracy, recall=0.5, precision=0.5, f1=0.5, average_precision=0.5, auc=auc)


def make_loop(
    listener: Listener | None = None,
    *,
    step: Any = None,
    found: Sequence[Metrics] = (),
    test_frequency: int = 0,
    print_frequency: int = 5,
    state: TrainingState | None = None,
    saved: list[Metrics] | None = None,
    save_on_auc: bool = False,
    regular_saves: RegularSaves | None = None,
    **training: Any,
) -> TrainingLoop:
    """Return a loop with learning rate 0.5. Its evaluations give the metrics `found`, then the last one again."""
    results = itertools.chain(found, itertools.repeat(found[-1] if found else metrics(0.5)))
    engine: Any = RecordingStep() if step is None else step
    return TrainingLoop(
        step=engine,
        settings=TrainingSettings(schedule=ScheduleSettings(0.5), **training),
        test_frequency=test_frequency,
        print_frequency=print_frequency,
        state=state or TrainingState(),
        listeners=[] if listener is None else [listener],
        evaluate=lambda: next(results),
        save=None if saved is None else saved.append,
        save_on_auc=save_on_auc,
        regular_saves=regular_saves,
    )


def data(batches: int) -> Any:
    """Return a source of `batches` batches of 10 samples per epoch."""
    return SimpleNamespace(
        batches_per_epoch=batches,
        samples=10 * batches,
        batches=lambda epoch: iter([SimpleNamespace(size=10)] * batches),
    )


def test_gradients_pending_at_the_end_of_an_epoch_are_applied() -> None:
    step = RecordingStep()
    loop = make_loop(step=step, epochs=2, accumulate=3)
    loop.run(data(5))
    assert step.rates == 2 * [None, None, 0.5, None, 0.5]
    assert loop.state.step == 4


def test_all_epochs_are_trained_and_numbered_from_0() -> None:
    listener, step = RecordingListener(), RecordingStep()
    make_loop(listener, step=step, epochs=3).run(data(2))
    assert step.epochs == [0, 1, 2]
    assert listener.of("epoch_start") == [(0, 0), (1, 0), (2, 0)]
    assert listener.of("epoch_stop") == [(0, 2), (1, 2), (2, 2)]
    assert listener.of("step_stop") == [(epoch, batch) for epoch in range(3) for batch in (1, 2)]


def test_evaluations_happen_at_their_frequency_and_at_the_end_of_each_epoch() -> None:
    listener = RecordingListener()
    make_loop(listener, epochs=2, test_frequency=2).run(data(5))
    assert listener.of("evaluation_start") == [(0, 2), (0, 4), (0, 5), (1, 2), (1, 4), (1, 5)]


def test_progress_is_reported_at_its_frequency_before_evaluations_and_at_the_end_of_each_epoch() -> None:
    listener = RecordingListener()
    make_loop(listener, epochs=2, print_frequency=3, test_frequency=4).run(data(5))
    assert listener.of("progress") == [(0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5)]


def test_progress_reports_means_over_the_samples_since_the_last_report() -> None:
    listener = RecordingListener()
    loop = make_loop(listener, step=RecordingStep(loss=0.75), print_frequency=2)
    loop.run(data(5))
    assert listener.reports == [(0.75, 0.5)] * 3
    assert (loop.state.last_loss, loop.state.samples) == (0.75, 50)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that `time.perf_counter` reads during the test."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.seconds)
    return clock


def test_time_per_iteration_is_the_mean_in_milliseconds(clock: Clock) -> None:
    listener = RecordingListener()
    make_loop(listener, step=RecordingStep(clock=clock), print_frequency=3, epochs=2).run(data(7))
    assert listener.milliseconds == pytest.approx([20.0] * 6)


def test_evaluation_time_does_not_count_as_training_time(clock: Clock) -> None:
    class SlowEvaluation(RecordingListener):
        def evaluation_start(self, position: Position) -> None:
            clock.seconds += 100

    listener = SlowEvaluation()
    step = RecordingStep(clock=clock)
    make_loop(listener, step=step, print_frequency=1, test_frequency=1, epochs=2).run(data(2))
    assert listener.milliseconds == pytest.approx([20.0] * 4)


def test_test_frequency_of_one_evaluates_after_every_batch() -> None:
    listener = RecordingListener()
    make_loop(listener, test_frequency=1).run(data(3))
    assert listener.of("evaluation_start") == [(0, 1), (0, 2), (0, 3)]


def test_run_ends_as_soon_as_the_target_is_reached() -> None:
    listener = RecordingListener()
    loop = make_loop(
        listener, found=[metrics(0.6), metrics(0.7)], test_frequency=2, epochs=3, accuracy_threshold=0.7
    )
    assert loop.run(data(10)) is Outcome.SUCCESS
    assert listener.of("step_stop")[-1] == (0, 4)
    assert listener.of("epoch_stop") == [(0, 4)]
    assert loop.last_metrics == metrics(0.7)


def test_target_that_is_never_reached_is_missed() -> None:
    loop = make_loop(found=[metrics(0.6)], test_frequency=5, epochs=2, accuracy_threshold=0.7)
    assert loop.run(data(10)) is Outcome.TARGET_MISSED
    assert (loop.state.epoch, loop.state.iteration) == (1, 10)


def test_run_without_a_target_succeeds_when_it_completes() -> None:
    assert make_loop(test_frequency=5).run(data(10)) is Outcome.SUCCESS


@pytest.mark.parametrize(
    ("accuracy_threshold", "auc_threshold", "accuracy", "auc", "reached"),
    [
        (0.0, 0.0, 0.9, 0.9, False),
        (0.7, 0.0, 0.7, 0.1, True),
        (0.7, 0.0, 0.69, 0.9, False),
        (0.0, 0.8, 0.1, 0.8, True),
        (0.0, 0.8, 0.9, 0.79, False),
        (0.7, 0.8, 0.9, 0.1, True),
        (0.7, 0.8, 0.1, 0.9, True),
        (0.0, 0.8, 0.9, math.nan, False),
    ],
)
def test_each_threshold_works_alone_or_combined(
    accuracy_threshold: float, auc_threshold: float, accuracy: float, auc: float, reached: bool
) -> None:
    settings = TrainingSettings(accuracy_threshold=accuracy_threshold, auc_threshold=auc_threshold)
    assert target_reached(settings, metrics(accuracy, auc)) is reached


@pytest.mark.parametrize(("save_on_auc", "expected"), [(False, [0, 1]), (True, [0, 2])])
def test_model_is_saved_only_when_its_metric_improves(save_on_auc: bool, expected: list[int]) -> None:
    listener = RecordingListener()
    saved: list[Metrics] = []
    found = [metrics(0.6, 0.6), metrics(0.7, 0.5), metrics(0.65, 0.8), metrics(0.7, 0.8)]
    loop = make_loop(listener, found=found, test_frequency=2, saved=saved, save_on_auc=save_on_auc)
    loop.run(data(8))
    assert saved == [found[number] for number in expected]
    assert [number for number, (_, _, improved) in enumerate(listener.evaluations) if improved] == expected


@pytest.mark.parametrize("save_on_auc", [False, True])
def test_model_is_saved_by_accuracy_while_the_auc_is_undefined(save_on_auc: bool) -> None:
    saved: list[Metrics] = []
    found = [metrics(0.6), metrics(0.5), metrics(0.7)]
    make_loop(found=found, test_frequency=2, saved=saved, save_on_auc=save_on_auc).run(data(6))
    assert saved == [found[0], found[2]]


def test_first_defined_auc_is_an_improvement_on_an_undefined_one() -> None:
    saved: list[Metrics] = []
    loop = make_loop(test_frequency=2, saved=saved, save_on_auc=True, found=[metrics(0.5, 0.6)])
    loop.state.best = metrics(0.9, math.nan)  # resumed from a run that computed only the accuracy
    loop.run(data(2))
    assert saved == [metrics(0.5, 0.6)]
    assert (loop.state.best.accuracy, loop.state.best.auc) == (0.9, 0.6)


def test_evaluation_is_reported_with_its_metrics_and_the_best_so_far() -> None:
    listener = RecordingListener()
    found = [metrics(0.6, 0.6), metrics(0.7, 0.5), metrics(0.65, 0.8)]
    make_loop(listener, found=found, test_frequency=2).run(data(6))
    assert listener.of("evaluation_stop") == listener.of("evaluation_start") == [(0, 2), (0, 4), (0, 6)]
    assert [own for own, _, _ in listener.evaluations] == found
    bests = [(best.accuracy, best.auc) for _, best, _ in listener.evaluations]
    assert bests == [(0.6, 0.6), (0.7, 0.6), (0.7, 0.8)]


@pytest.mark.parametrize(
    ("iteration", "starts", "steps"),
    [
        (2, [(0, 2), (1, 0)], [(0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4)]),
        (4, [(1, 0)], [(1, 1), (1, 2), (1, 3), (1, 4)]),
    ],
)
def test_resumed_run_skips_the_batches_already_trained(
    iteration: int, starts: list[tuple[int, int]], steps: list[tuple[int, int]]
) -> None:
    listener = RecordingListener()
    make_loop(listener, epochs=2, state=TrainingState(iteration=iteration)).run(data(4))
    assert listener.of("epoch_start") == starts
    assert listener.of("step_stop") == steps


def test_resuming_a_completed_run_trains_nothing() -> None:
    listener = RecordingListener()
    loop = make_loop(listener, epochs=2, state=TrainingState(epoch=1, iteration=4))
    assert loop.run(data(4)) is Outcome.SUCCESS
    assert listener.events == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_nonfinite_loss_ends_the_run_and_names_the_batch(loss: float) -> None:
    loop = make_loop(step=RecordingStep(loss=loss), print_frequency=2)
    with pytest.raises(DivergedError, match=r"by batch 2 of epoch 0"):
        loop.run(data(4))


class Saves(RegularSaves):
    """Keeps the positions at which the newest weights are saved. A batch takes 20 ms."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        super().__init__(seconds / 60, self._note, clock=lambda: clock.seconds)
        self.loop: TrainingLoop | None = None
        self.saved: list[tuple[int, int, float]] = []

    def _note(self, found: Metrics) -> None:
        assert self.loop is not None
        self.saved.append((self.loop.state.epoch, self.loop.state.iteration, found.accuracy))


def saved_positions(
    seconds: float, clock: Clock, batches: int = 12, **options: Any
) -> tuple[list[tuple[int, int]], TrainingLoop]:
    """Train with saves every `seconds`; return their positions, and the loop."""
    saves = Saves(seconds, clock)
    saves.loop = make_loop(step=RecordingStep(clock), regular_saves=saves, **options)
    saves.loop.run(data(batches))
    return [(epoch, iteration) for epoch, iteration, _ in saves.saved], saves.loop


def test_newest_weights_are_saved_at_progress_reports_when_it_is_time_and_at_the_end() -> None:
    assert saved_positions(0.07, Clock(), print_frequency=1)[0] == [(0, 4), (0, 8), (0, 12)]
    assert saved_positions(0.07, Clock(), print_frequency=5)[0] == [(0, 5), (0, 10), (0, 12)]
    assert saved_positions(0.07, Clock(), print_frequency=100, epochs=2)[0] == [(0, 12), (1, 12)]
    assert saved_positions(9, Clock(), print_frequency=1)[0] == [(0, 12)]


def test_newest_weights_are_saved_without_pending_gradients() -> None:
    assert saved_positions(0, Clock(), batches=8, print_frequency=1, accumulate=3)[0] == [(0, 3), (0, 6), (0, 8)]
    assert saved_positions(0, Clock(), batches=8, print_frequency=2, accumulate=3)[0] == [(0, 6), (0, 8)]


def test_newest_weights_are_saved_after_an_evaluation_with_its_metrics() -> None:
    clock = Clock()
    saves = Saves(0, clock)
    found = [metrics(0.5), metrics(0.4)]
    saves.loop = make_loop(
        step=RecordingStep(clock), regular_saves=saves, found=found, test_frequency=2, print_frequency=9, saved=[]
    )
    saves.loop.run(data(4))
    assert saves.saved == [(0, 2, 0.5), (0, 4, 0.4)]
    assert (saves.loop.last_saved, saves.loop.newest_saved) == (Position(0, 2, 4), Position(0, 4, 4))


def test_newest_weights_are_saved_when_the_target_ends_the_run_and_not_if_nothing_was_trained() -> None:
    target: dict[str, Any] = {"test_frequency": 2, "found": [metrics(0.9)], "accuracy_threshold": 0.8}
    assert saved_positions(9, Clock(), **target)[0] == [(0, 2)]
    positions, loop = saved_positions(0, Clock(), state=TrainingState(epoch=0, iteration=12))
    assert positions == []
    assert loop.newest_saved is None


def test_time_of_saving_does_not_count_as_training_time(clock: Clock) -> None:
    class Slow(Saves):
        def _note(self, found: Metrics) -> None:
            clock.seconds += 100

    saves, listener = Slow(0, clock), RecordingListener()
    saves.loop = make_loop(listener, step=RecordingStep(clock), regular_saves=saves, print_frequency=2)
    saves.loop.run(data(6))
    assert listener.milliseconds == pytest.approx([20, 20, 20])
