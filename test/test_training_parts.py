"""Schedule, loss and training loop: each against its formula or definition."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mlperf.engines.protocol import LossSums
from mlperf.evaluation.metrics import Metrics
from mlperf.models.loss import Loss
from mlperf.settings.training import ScheduleSettings, TrainingSettings
from mlperf.training.events import Listener, Position
from mlperf.training.loop import TrainingLoop
from mlperf.training.schedule import learning_rate
from mlperf.training.state import TrainingState


def test_schedule_follows_its_published_points() -> None:
    schedule = ScheduleSettings(18.0, warmup_steps=4, decay_start_step=6, decay_steps=3)
    expected = [18 * 1 / 4, 18 * 2 / 4, 18 * 3 / 4, 18 * 3 / 4, 18 * 3 / 4]
    expected += [18.0, 18 * (2 / 3) ** 2, 18 * (1 / 3) ** 2, 18 * (1 / 3) ** 2, 18 * (1 / 3) ** 2]
    assert [learning_rate(schedule, step) for step in range(1, 11)] == pytest.approx(expected)


def test_learning_rate_does_not_fall_below_its_minimum() -> None:
    assert learning_rate(ScheduleSettings(1e-3, 0, 0, 10**6), 999_999) == 1e-7


def test_warm_up_without_a_decay_ends_at_the_base_rate() -> None:
    schedule = ScheduleSettings(2.0, warmup_steps=2)
    assert [learning_rate(schedule, step) for step in (1, 2, 3, 100)] == [1.0, 2.0, 2.0, 2.0]


def test_weighted_cross_entropy_is_the_mean_of_weighted_terms() -> None:
    probability, labels = torch.tensor([[0.2], [0.7], [0.9]]), torch.tensor([[0.0], [1.0], [0.0]])
    expected = (0.5 * -np.log(0.8) + 2.0 * -np.log(0.7) + 0.5 * -np.log(0.1)) / 3
    assert float(Loss("wbce", (0.5, 2.0))(probability, labels)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_cross_entropy_and_its_gradient_are_pytorchs_even_for_certain_predictions(label: float) -> None:
    values = torch.tensor([[0.0], [1e-20], [0.3], [1.0]])
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    labels = torch.full_like(values, label)
    found = Loss("bce")(ours, labels)
    expected = torch.nn.functional.binary_cross_entropy(theirs, labels)
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_cross_entropy_of_a_nan_is_a_nan() -> None:
    assert Loss("bce")(torch.tensor([[0.5], [float("nan")]]), torch.ones(2, 1)).isnan()


class RecordingStep:
    """An engine that trains nothing: it notes the learning rates and takes `seconds` per batch."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.device = torch.device("cpu")
        self.sums = LossSums.zeros(self.device)
        self.rates: list[float | None] = []
        self.seconds = seconds

    def batches(self, data: Any, epoch: int, first: int = 0) -> Iterator[Any]:
        return itertools.islice(data.batches(epoch), first, None)

    def train(self, batch: Any, rate: float | None) -> None:
        time.sleep(self.seconds)
        self.rates.append(rate)

    def check(self) -> None: ...


class RecordingListener(Listener):
    """Keeps where evaluations began and how long iterations took."""

    def __init__(self) -> None:
        self.evaluated: list[tuple[int, int]] = []
        self.milliseconds: list[float] = []

    def evaluation_start(self, position: Position) -> None:
        self.evaluated.append((position.epoch, position.iteration))

    def progress(self, position: Position, loss: float, accuracy: float, ms_per_iteration: float) -> None:
        self.milliseconds.append(ms_per_iteration)


def run_loop(
    step: Any,
    batches: int,
    *,
    epochs: int = 1,
    accumulate: int = 1,
    test_frequency: int = 0,
    print_frequency: int = 5,
) -> RecordingListener:
    """Run a loop over `batches` batches of 10 samples per epoch, with learning rate 0.5."""
    listener = RecordingListener()
    data: Any = SimpleNamespace(
        batches_per_epoch=batches,
        samples=10 * batches,
        batches=lambda epoch: iter([SimpleNamespace(size=10)] * batches),
    )
    loop = TrainingLoop(
        step=step,
        settings=TrainingSettings(epochs=epochs, accumulate=accumulate, schedule=ScheduleSettings(0.5)),
        test_frequency=test_frequency,
        print_frequency=print_frequency,
        state=TrainingState(),
        listeners=[listener],
        evaluate=lambda: Metrics(0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
    )
    loop.run(data)
    return listener


def test_gradients_left_at_the_end_of_an_epoch_are_applied() -> None:
    step = RecordingStep()
    run_loop(step, 5, epochs=2, accumulate=3)
    assert step.rates == 2 * [None, None, 0.5, None, 0.5]


def test_evaluations_come_at_their_frequency_and_at_the_end_of_each_epoch() -> None:
    listener = run_loop(RecordingStep(), 5, epochs=2, test_frequency=2)
    assert listener.evaluated == [(0, 2), (0, 4), (0, 5), (1, 2), (1, 4), (1, 5)]


def test_time_per_iteration_is_in_milliseconds() -> None:
    listener = run_loop(RecordingStep(seconds=0.02), 6, print_frequency=3)
    assert len(listener.milliseconds) == 2
    assert all(20 <= found < 2000 for found in listener.milliseconds)


@pytest.mark.parametrize(
    ("batches", "accumulate", "expected"),
    [(55, 1, 3), (55, 4, 4), (100, 1, 5), (100, 3, 6), (10, 1, 1), (10, 4, 4)],
)
def test_scheduled_evaluations_come_at_optimizer_steps(batches: int, accumulate: int, expected: int) -> None:
    settings = TrainingSettings(accumulate=accumulate, auc_threshold=0.8)
    assert settings.batches_between_tests(batches, evaluations_per_epoch=20) == expected
